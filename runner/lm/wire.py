"""Read requests in OpenAI's three formats, and write answers and errors in them. A streamed answer is sent when it is whole."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import msgspec

from runner.answers import ending_of
from runner.errors import BudgetExceeded, CacheError, ConfigError, LMError, OstinatoError, RecordError
from runner.lm.connection import is_connection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.types import Choice, Message, Response, Usage

Form: TypeAlias = Literal["chat", "text", "responses"]

PATHS: dict[str, Form] = {"/v1/chat/completions": "chat", "/v1/completions": "text", "/v1/responses": "responses"}

_OWN = frozenset(
    {"cache", "cache_in_memory", "num_retries", "rollout", "rollout_id", "callbacks", "provider", "messages", "prompt"}
)
"""Arguments of an LM that are not parameters of a request, and what a format has no place for."""
_COUNTS = ("n", "best_of")

_STATUSES = {
    "authentication": 401, "permission_denied": 403, "not_found": 404, "bad_request": 400, "context_window": 400,
    "content_filter": 400, "rate_limit": 429, "quota": 429, "timeout": 504,
}  # fmt: skip
"""Statuses of our errors where the server has sent none. All others are failures behind the proxy: 502."""

_CODES = {"context_window": "context_length_exceeded", "quota": "insufficient_quota"}
"""OpenAI's codes for errors that we call otherwise (platform.openai.com/docs/guides/error-codes)."""

_encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """A request of a program.

    Attributes:
        form: which of the three formats it is in.
        model: the model that it names.
        messages: the conversation; None for text.
        prompt: the text to continue; None for a conversation.
        params: the other parameters, by their names in chat completions.
        stream: whether the answer is sent as events; `usage`: whether these end with one that has the tokens.
    """

    form: Form
    model: str
    messages: list[Message] | None
    prompt: str | None
    params: dict[str, Any]
    stream: bool
    usage: bool


_object = msgspec.json.Decoder(dict[str, Any]).decode


def read(form: Form, body: bytes) -> Asked:
    """Read a request. Raises ConfigError for one that cannot be sent."""
    try:
        return _read(form, _object(body))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"the body is not a JSON object: {error}") from None
    except (AttributeError, TypeError) as error:  # a text where an object has to be, for example
        raise ConfigError(f"the request does not have the form of {form}: {error}") from None


def _read(form: Form, given: dict[str, Any]) -> Asked:
    model = given.pop("model", "")
    stream, options = given.pop("stream", None), given.pop("stream_options", None)
    messages, prompt = None, None
    if form == "chat":
        messages = given.pop("messages", None)
        if not isinstance(messages, list) or not messages:
            raise ConfigError("messages: give a list of messages")
    elif form == "text":
        prompt = given.pop("prompt", None)
        if not isinstance(prompt, str):
            raise ConfigError("prompt: give one text; lists and tokens are not served")
    else:
        messages = _messages_of(given)
        _rename(given)
    if not all(isinstance(message, dict) and "role" in message for message in messages or ()):
        raise ConfigError("messages: a message is an object with role and content")
    if wrong := next((name for name in given if is_connection(name) or name in _OWN), None):
        raise ConfigError(f"{wrong}: is not a parameter of a request")
    if wrong := next((name for name in _COUNTS if not isinstance(given.get(name) or 1, int)), None):
        raise ConfigError(f"{wrong}: give a whole number")
    return Asked(form, str(model), messages, prompt, given, bool(stream), bool((options or {}).get("include_usage")))


def _messages_of(given: dict[str, Any]) -> list[Message]:
    """Take the conversation out of a request of the responses API, as chat messages."""
    asked, told = given.pop("input", None), given.pop("instructions", None)
    if given.get("previous_response_id") or given.get("conversation"):
        raise ConfigError("previous_response_id: the proxy keeps no conversations; send all of it as input")
    for name in ("previous_response_id", "conversation", "store", "include", "truncation", "background"):
        given.pop(name, None)
    messages: list[Message] = [{"role": "system", "content": told}] if told else []
    if isinstance(asked, str):
        return [*messages, {"role": "user", "content": asked}]
    if not isinstance(asked, list) or not asked:
        raise ConfigError("input: give a text or a list of items")
    return [*messages, *_items(asked)]


def _items(items: Iterable[Any]) -> Iterator[Message]:
    calls: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind == "function_call":
            calls.append(_call(item.get("call_id"), item.get("name"), item.get("arguments")))
            continue
        if calls:
            yield {"role": "assistant", "content": None, "tool_calls": calls}
            calls = []
        if kind == "function_call_output":
            yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
        elif kind == "message":
            yield {"role": item.get("role"), "content": _content(item.get("content"))}
        elif kind != "reasoning":  # earlier thinking is the server's to keep
            raise ConfigError(f"input[{index}]: items of type {kind!r} are not served")
    if calls:
        yield {"role": "assistant", "content": None, "tool_calls": calls}


def _content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [_part(part) if isinstance(part, dict) else part for part in content]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "input_text" | "output_text":
            return {"type": "text", "text": part.get("text")}
        case "input_image":
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": part.get("image_url"), **detail}}
    return part


def _rename(given: dict[str, Any]) -> None:
    """Give parameters of the responses API their names in chat completions."""
    if (limit := given.pop("max_output_tokens", None)) is not None:
        given["max_tokens"] = limit
    if effort := (given.pop("reasoning", None) or {}).get("effort"):
        given["reasoning_effort"] = effort
    form = (given.pop("text", None) or {}).get("format")
    if form and form.get("type") == "json_schema":
        given["response_format"] = {"type": "json_schema", "json_schema": {k: v for k, v in form.items() if k != "type"}}
    elif form and form.get("type") != "text":
        given["response_format"] = form
    if tools := given.get("tools"):
        given["tools"] = [_tool(tool) for tool in tools]


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise ConfigError(f"tools: only functions are served, not {tool.get('type')!r}")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _call(id_: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


# --- answers


def answer(asked: Asked, response: Response) -> bytes:
    """Return the body of an answer: JSON, or the events of a stream."""
    if asked.form == "responses":
        whole = _responses(asked, response)
        return b"".join(_response_events(whole)) if asked.stream else _encode(whole)
    build = _chat_choice if asked.form == "chat" else _text_choice
    name = "chat.completion" if asked.form == "chat" else "text_completion"
    head = {"id": response.id or f"chatcmpl-{uuid.uuid4().hex}", "object": name, "created": response.created or int(time.time())}
    head["model"] = response.model or asked.model
    if response.system_fingerprint is not None:
        head["system_fingerprint"] = response.system_fingerprint
    if asked.stream:
        return b"".join(_chunks(asked, response, head))
    choices = [build(index, choice) for index, choice in enumerate(response.choices)]
    return _encode({**head, "choices": choices, "usage": _usage(response.usage)})


def _chat_choice(index: int, choice: Choice) -> dict[str, Any]:
    message = {"role": "assistant", **_said(choice)}
    message.setdefault("content", None)
    return {"index": index, "message": message, "logprobs": choice.logprobs, "finish_reason": choice.finish_reason or "stop"}


def _said(choice: Choice) -> dict[str, Any]:
    parts = {"content": choice.text, "reasoning_content": choice.reasoning, "tool_calls": choice.tool_calls}
    return {name: part for name, part in parts.items() if part is not None}


def _text_choice(index: int, choice: Choice) -> dict[str, Any]:
    ended = choice.finish_reason or "stop"
    return {"index": index, "text": choice.text or "", "logprobs": choice.logprobs, "finish_reason": ended}


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    counts: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens:
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts


def _chunks(asked: Asked, response: Response, head: dict[str, Any]) -> Iterator[bytes]:
    """Yield the events of a streamed answer (platform.openai.com/docs/api-reference/chat-streaming)."""
    head = {**head, "object": "chat.completion.chunk" if asked.form == "chat" else head["object"]}
    more = {"usage": None} if asked.usage else {}
    for index, choice in enumerate(response.choices):
        ended = choice.finish_reason or "stop"
        if asked.form == "text":
            parts = [_text_choice(index, choice)]
        else:
            delta = {"role": "assistant", "content": "", **_said(choice)}
            if choice.tool_calls:
                delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(choice.tool_calls)]
            parts = [{"index": index, "delta": delta, "logprobs": choice.logprobs, "finish_reason": None}]
            parts.append({"index": index, "delta": {}, "logprobs": None, "finish_reason": ended})
        for part in parts:
            yield _event({**head, "choices": [part], **more})
    if asked.usage:
        yield _event({**head, "choices": [], "usage": _usage(response.usage)})
    yield b"data: [DONE]\n\n"


def _event(data: dict[str, Any], name: str | None = None) -> bytes:
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + _encode(data) + b"\n\n"


def _responses(asked: Asked, response: Response) -> dict[str, Any]:
    """Return an answer of the responses API (platform.openai.com/docs/api-reference/responses/object)."""
    choice, id_ = response.choices[0], response.id or f"resp_{uuid.uuid4().hex}"
    output: list[dict[str, Any]] = []
    if choice.reasoning:
        said = [{"type": "summary_text", "text": choice.reasoning}]
        output.append({"type": "reasoning", "id": f"rs_{id_}", "summary": said})
    if choice.text is not None:
        content = [{"type": "output_text", "text": choice.text, "annotations": []}]
        output.append({"type": "message", "id": f"msg_{id_}", "status": "completed", "role": "assistant", "content": content})
    for call in choice.tool_calls or ():
        named = {"call_id": call.get("id"), **call.get("function", {})}
        output.append({"type": "function_call", "id": f"fc_{call.get('id')}", "status": "completed", **named})
    cut = {"cut": "max_output_tokens", "refused": "content_filter"}.get(ending_of(choice.finish_reason))
    usage = response.usage
    return {
        "id": id_,
        "object": "response",
        "created_at": response.created or int(time.time()),
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": cut} if cut else None,
        "error": None,
        "instructions": None,
        "metadata": {},
        "model": response.model or asked.model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": asked.params.get("temperature"),
        "tool_choice": asked.params.get("tool_choice", "auto"),
        "tools": [],
        "top_p": asked.params.get("top_p"),
        "usage": usage
        and {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        },
    }


def _response_events(whole: dict[str, Any]) -> Iterator[bytes]:
    """Yield the events of a streamed answer (platform.openai.com/docs/api-reference/responses-streaming)."""
    number = 0

    def event(kind: str, **data: Any) -> bytes:
        nonlocal number
        number += 1
        return _event({"type": kind, "sequence_number": number - 1, **data}, kind)

    yield event("response.created", response={**whole, "status": "in_progress", "output": [], "usage": None})
    for index, item in enumerate(whole["output"]):
        yield event("response.output_item.added", output_index=index, item=item)
        if item["type"] == "message":
            place = {"item_id": item["id"], "output_index": index, "content_index": 0}
            text = item["content"][0]["text"]
            yield event("response.content_part.added", **place, part={**item["content"][0], "text": ""})
            yield event("response.output_text.delta", **place, delta=text, logprobs=[])
            yield event("response.output_text.done", **place, text=text, logprobs=[])
            yield event("response.content_part.done", **place, part=item["content"][0])
        elif item["type"] == "function_call":
            place = {"item_id": item["id"], "output_index": index}
            yield event("response.function_call_arguments.delta", **place, delta=item["arguments"])
            yield event("response.function_call_arguments.done", **place, arguments=item["arguments"], name=item["name"])
        yield event("response.output_item.done", output_index=index, item=item)
    yield event(f"response.{whole['status']}", response=whole)


# --- errors


def error(message: str, *, kind: str, code: str | None = None) -> bytes:
    """Return the body of a refusal, as OpenAI writes it."""
    return _encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def refusal(raised: OstinatoError) -> tuple[int, bytes]:
    """Return status and body for an error of ours."""
    if isinstance(raised, BudgetExceeded):
        return 429, error(str(raised), kind="insufficient_quota", code="budget_exceeded")
    if isinstance(raised, CacheError):
        return 404, error(str(raised), kind="invalid_request_error", code="not_in_cache")
    if isinstance(raised, LMError):
        status = raised.status if raised.status and raised.status >= 400 else _STATUSES.get(raised.code, 502)  # noqa: PLR2004
        kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004
        return status, error(raised.message, kind=kind, code=_CODES.get(raised.code, raised.code))
    if isinstance(raised, RecordError):
        return 500, error(str(raised), kind="server_error")
    return 400, error(str(raised), kind="invalid_request_error")
