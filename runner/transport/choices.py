"""Read the answers in a body of OpenAI's wire format: texts, parts, thinking, refusals and tool calls, in all their forms.

`AnswerChoice` decodes the usual forms at once. `mend` rewrites a body that it does not decode.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.answers import ending_of
from runner.errors import ServerError
from runner.transport.base import failure, malformed, refused_with_200
from runner.types import Choice

if TYPE_CHECKING:
    from runner.types import Connection, Request

VERY_UNLIKELY = -9999.0
"""Stands for a log probability of minus infinity, which JSON lacks (OpenAI API reference, chat object, "logprob")."""
_ANSWERED = 200
"""The status of an error in an answer: it was generated, in part at least, and may be billed."""
_LATEST = 2**40
"""Seconds: a later `created` is not a time."""


class Function(msgspec.Struct):
    """The function of a tool call. Its arguments are JSON text; Ollama and some gateways send the object."""

    name: str | None = None
    arguments: str | dict[str, Any] | list[Any] | None = None


class ToolCall(msgspec.Struct):
    """One tool call."""

    id: str | int | None = None
    type: str | None = None
    function: Function | None = None


class AnswerMessage(msgspec.Struct):
    """The message of a chat answer."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    reasoning_content: str | list[Any] | None = None
    reasoning: str | list[Any] | None = None
    reasoning_details: list[Any] | None = None
    provider_specific_fields: dict[str, Any] | None = None


class AnswerChoice(msgspec.Struct):
    """One of the answers: `message` (chat) or `text` (text completions)."""

    message: AnswerMessage | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Any = None
    error: Any = None
    provider_specific_fields: dict[str, Any] | None = None


class Parts(NamedTuple):
    """The parts of a content; None: there was no part of that kind."""

    text: str | None
    thinking: str | None
    refusal: str | None


def choice_of(choice: AnswerChoice, request: Request, connection: Connection) -> Choice:
    """Return an answer in our form.

    Raises:
        LMError: it has no answer, or says that it has failed, which some servers do in a reply with status 200.
    """
    message = choice.message
    if choice.provider_specific_fields or (message is not None and message.provider_specific_fields):
        _show_hidden(choice)
    if choice.error or ending_of(choice.finish_reason) in ("failed", "malformed"):
        refuse_error(choice.error, request, connection)
        refuse_failure(choice.finish_reason, request, connection)
    if message is None:
        if choice.text is None:
            raise malformed(request, "it has no text")
        return Choice(choice.text, choice.finish_reason, choice.logprobs)
    finish_reason, refusal = choice.finish_reason, message.refusal
    text: Any = message.content
    thinking: Any = message.reasoning_content or message.reasoning or message.reasoning_details
    if type(text) is list:
        parts = parts_of(text)
        text, thinking, refusal = parts.text, thinking or parts.thinking, refusal or parts.refusal
    if type(thinking) is list:
        thinking = thinking_in(thinking)
    if refusal:
        text, finish_reason = text or refusal, "refusal"
    calls = message.tool_calls or ([ToolCall(type="function", function=message.function_call)] if message.function_call else None)
    return Choice(text, finish_reason, choice.logprobs, [_call(call) for call in calls] if calls else None, thinking or None)


def refuse_error(error: Any, request: Request, connection: Connection) -> None:
    """Raise LMError for an ``error`` in a reply with status 200, unless it is empty: some gateways always send one."""
    if says_something(error):
        raise refused_with_200(error if isinstance(error, dict) else {"message": error}, ServerError, request, connection)


def says_something(error: Any) -> bool:
    """Return whether an ``error`` has a message or a code."""
    told = error if isinstance(error, dict) else {"message": error}
    return bool(told.get("message")) or told.get("code") is not None


def refuse_failure(finish_reason: str | None, request: Request, connection: Connection) -> None:
    """Raise LMError for a finish reason that means that there is no answer."""
    ending, why = ending_of(finish_reason), f"the answer ended with finish_reason {finish_reason!r}"
    if ending == "malformed":
        raise malformed(request, why)
    if ending == "failed":
        raise failure(_ANSWERED, why, request=request, connection=connection, kind=ServerError)


def parts_of(content: list[Any]) -> Parts:
    """Return the parts of a content that is a list, as Mistral's and Databricks' thinking models send it, each kind joined."""
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            kind = part.get("type")
            if kind in ("thinking", "reasoning") or (isinstance(kind, str) and kind.startswith("reasoning.")):
                thoughts.append(_thought(part))
            elif part.get("refusal"):
                refusals.append(str(part["refusal"]))
            elif isinstance(part.get("text"), str):
                texts.append(part["text"])
    joined = ("".join(texts) if texts else None, "\n\n".join(filter(None, thoughts)) or None, "".join(refusals) or None)
    return Parts(*joined)


def thinking_in(blocks: list[Any]) -> str | None:
    """Return the thinking in a list of blocks, which are thinking without saying so."""
    return "\n\n".join(filter(None, (block if isinstance(block, str) else _thought(block) for block in blocks))) or None


def created_at(created: float | str | None) -> int | None:
    """Return a time in seconds since 1970, from a number, its text, or ISO 8601; None if it is none of these."""
    seconds: Any = created
    if isinstance(created, str):
        try:
            seconds = float(created)
        except ValueError:
            try:
                seconds = datetime.fromisoformat(created).timestamp()
            except (ValueError, OverflowError, OSError):
                return None
    return int(seconds) if seconds is not None and abs(seconds) < _LATEST else None


def finite(value: Any) -> Any:
    """Return data with numbers that JSON has: minus infinity becomes `VERY_UNLIKELY`, infinity and NaN become None."""
    if isinstance(value, float) and not math.isfinite(value):
        return VERY_UNLIKELY if value < 0 else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


def mend(data: bytes) -> bytes | None:
    """Return a body as JSON of the usual form: every value of a known field has a type that the field may have.

    Half of a surrogate pair, which can end a cut-off answer, becomes ``?``. None: it is not a JSON object.
    """
    try:
        body = json.loads(data)  # unlike msgspec's it takes NaN, Infinity and half pairs
        if not isinstance(body, dict):
            return None
        return json.dumps(_mended(body), ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return None


def _mended(body: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {name: _text(body.get(name)) for name in ("id", "model", "system_fingerprint")}
    created, choices = body.get("created"), body.get("choices")
    made["created"] = created if isinstance(created, int | float | str) and not isinstance(created, bool) else None
    if isinstance(choices, list):
        choices = [_mended_choice(choice) if isinstance(choice, dict) else choice for choice in choices]
    others = {name: body[name] for name in ("usage", "error") if name in body}
    mended: dict[str, Any] = finite({**made, **others, "choices": choices})
    return mended


def _mended_choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    made = {name: choice.get(name) for name in ("logprobs", "error")}
    made["index"] = _index(choice)
    made |= {name: _text(choice.get(name)) for name in ("text", "finish_reason")}
    made["provider_specific_fields"] = _object(choice.get("provider_specific_fields"))
    if not isinstance(message, dict):
        return made
    content = message.get("content")
    said: dict[str, Any] = {"content": content if isinstance(content, list) else _json_text(content)}
    said["refusal"] = _text(message.get("refusal"))
    said |= {name: _thinking(message.get(name)) for name in ("reasoning_content", "reasoning", "reasoning_details")}
    calls = message.get("tool_calls")
    said["provider_specific_fields"] = _object(message.get("provider_specific_fields"))
    said["function_call"] = _mended_function(message.get("function_call"))
    said["tool_calls"] = [_mended_call(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else None
    return {**made, "message": said}


def _mended_call(call: dict[str, Any]) -> dict[str, Any]:
    function = _mended_function(call.get("function"))
    return {"id": _text(call.get("id")), "type": _text(call.get("type")), "function": function, "index": _index(call)}


def _mended_function(function: Any) -> dict[str, Any] | None:
    if not isinstance(function, dict):
        return None
    return {"name": _text(function.get("name")), "arguments": _json_text(function.get("arguments"))}


def _index(value: dict[str, Any]) -> int | None:
    index = value.get("index")
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def _list(value: Any) -> list[Any] | None:
    return value if isinstance(value, list) else None


def _object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _thinking(value: Any) -> Any:
    return value if isinstance(value, list) else [value] if isinstance(value, dict) else _text(value)


def _show_hidden(choice: AnswerChoice) -> None:
    """Put what litellm's proxy (1.106, 1.108) hides in ``provider_specific_fields`` back into its place.

    It hides every field that it does not know, and turns finish reasons that it does not know into ``stop``.
    """
    hidden, message = choice.provider_specific_fields or {}, choice.message
    choice.finish_reason = _text(hidden.get("native_finish_reason")) or choice.finish_reason
    choice.error = choice.error or hidden.get("error")
    if message is not None:
        hidden = message.provider_specific_fields or {}
        message.refusal = message.refusal or _text(hidden.get("refusal"))
        message.reasoning = message.reasoning or _thinking(hidden.get("reasoning"))
        message.reasoning_details = message.reasoning_details or _list(hidden.get("reasoning_details"))


def _call(call: ToolCall) -> dict[str, Any]:
    function = call.function
    made = None if function is None else {"name": function.name, "arguments": _json_text(function.arguments)}
    return {"id": _text(call.id), "type": call.type, "function": made}


def _thought(block: Any) -> str:
    """Return the text of one block of thinking: ``{"thinking": [{"text": ...}]}``, ``{"summary": [...]}``, ``{"text": ...}``."""
    if isinstance(block, str):
        return block
    if not isinstance(block, dict):
        return ""
    said = next((block[name] for name in ("thinking", "summary", "text", "content", "reasoning") if block.get(name)), "")
    return "".join(map(_thought, said)) if isinstance(said, list) else said if isinstance(said, str) else ""


def _text(value: Any) -> str | None:
    """Return a text or a number as text; None for anything else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _json_text(value: Any) -> Any:
    """Return data as JSON text; a text and None as they are."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
