"""Send chat, text and responses calls through litellm. The only module that imports litellm, which never retries or caches."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import os
import sys
import time
import types
import warnings
from itertools import zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from runner.answers import ending_of, is_known
from runner.errors import BadRequestError, LMError, MalformedError, ServerError
from runner.transport import usage
from runner.transport.answer import read
from runner.transport.asking import learn, stream_fields
from runner.transport.base import failure, malformed
from runner.transport.litellm_errors import mapped
from runner.transport.litellm_stream import Chunks, Events, check_time, lines_of, response_of
from runner.transport.streamed import StreamedAnswer
from runner.transport.users import Users
from runner.types import Choice, Connection, Message, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping

    from runner.transport.base import Hear


class LiteLLMTransport:
    """Reach every provider that litellm knows, at 3 to 4 ms of CPU per call.

    ``local/NAME`` (a server of our own) and text completions go through litellm's OpenAI-compatible routes. Answers are streamed
    where `Connection.stream` says so, except text completions.
    """

    def prepare(self, request: Request, connection: Connection) -> None:  # noqa: ARG002 - Transport
        """Import litellm: 2 to 5 seconds."""
        _litellm()

    def complete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Send the request and wait. Raises LMError."""
        litellm = _litellm()
        if asked := _asked(request, connection):
            return self._streamed(request, connection, hear, asked)
        wire = Wire()
        arguments = _arguments(request, connection, wire)
        _refuse_embedding(request)
        call = {"chat": litellm.completion, "text": litellm.text_completion, "responses": litellm.responses}[request.model_type]
        try:
            answer = call(**arguments)
        except Exception as error:  # noqa: BLE001 - boundary: litellm raises its own, the SDK's and httpx's classes
            return _despite(error, wire, request, connection, hear)
        _tell(hear, answer)
        return _response(answer, wire, request, connection)

    async def acomplete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Do as `complete`, without blocking the event loop."""
        litellm = _litellm()
        _users.join(self)
        if asked := _asked(request, connection):
            return await self._astreamed(request, connection, hear, asked)
        wire = Wire()
        arguments = _arguments(request, connection, wire)
        _refuse_embedding(request)
        call = {"chat": litellm.acompletion, "text": litellm.atext_completion, "responses": litellm.aresponses}[
            request.model_type
        ]
        try:
            answer = await call(**arguments)
        except Exception as error:  # noqa: BLE001 - boundary: litellm raises its own, the SDK's and httpx's classes
            return _despite(error, wire, request, connection, hear)
        _tell(hear, answer)
        return _response(answer, wire, request, connection)

    def _streamed(self, request: Request, connection: Connection, hear: Hear | None, asked: dict[str, Any]) -> Response:
        litellm, reader = _litellm(), _Reader(request, connection)
        call = litellm.responses if request.model_type == "responses" else litellm.completion
        try:
            with contextlib.closing(reader.open(call(**_arguments(request, connection, Wire(), asked)))) as pieces:
                for piece in pieces:
                    reader.take(piece)
                    check_time(reader.began, request, connection)
        except LMError:
            raise
        except Exception as error:  # noqa: BLE001 - boundary: litellm raises its own, the SDK's and httpx's classes
            if reader.failed(error, hear, asked):
                return self.complete(request, connection, hear)
        return reader.response(hear)

    async def _astreamed(self, request: Request, connection: Connection, hear: Hear | None, asked: dict[str, Any]) -> Response:
        litellm, reader = _litellm(), _Reader(request, connection)
        call = litellm.aresponses if request.model_type == "responses" else litellm.acompletion
        try:
            stream = await call(**_arguments(request, connection, Wire(), asked))
            async with contextlib.aclosing(reader.aopen(stream)) as pieces:
                async for piece in pieces:
                    reader.take(piece)
        except LMError:
            raise
        except Exception as error:  # noqa: BLE001 - boundary: litellm raises its own, the SDK's and httpx's classes
            if reader.failed(error, hear, asked):
                return await self.acomplete(request, connection, hear)
        return reader.response(hear)

    async def aclose(self) -> None:
        """Close this event loop's clients, unless another transport uses them.

        litellm would keep them, and hand them to a later loop with the same id.
        """
        if not _users.leave(self) or not _litellm.cache_info().currsize:
            return
        clients = _litellm().in_memory_llm_clients_cache
        of_this_loop = clients.update_cache_key_with_event_loop("")  # what litellm adds to the keys of this loop's clients
        for key in [key for key in clients.cache_dict if key.endswith(of_this_loop)]:
            client = clients.cache_dict.pop(key)
            if vars(_litellm()).get("module_level_aclient") is client:  # else it would be used again in the next loop
                del vars(_litellm())["module_level_aclient"]
            clients.ttl_dict.pop(key, None)
            await client.close()


def _refuse_embedding(request: Request) -> None:
    if request.model_type == "embedding":
        why = "embeddings are asked in OpenAI's wire format only: a server with /embeddings, or openai/..."
        raise failure(None, why, request=request, kind=BadRequestError)


_users = Users()


@functools.cache
def _litellm() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it fetches its price map at import
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litellm
    _without_mcp()
    _without_second_requests()
    # pydantic warns about litellm's own types, when it first sees them and whenever it serialises some of them
    warnings.filterwarnings("ignore", "Items? '.*' on TypedDict class")
    warnings.filterwarnings("ignore", "(?s)Pydantic serializer warnings")
    warnings.filterwarnings("ignore", "coroutine '.*acompletion' was never awaited")  # cancelled before litellm awaited it
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)  # it warns about its own housekeeping, on stderr
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = False
    litellm.cache = None
    litellm.disable_aiohttp_transport = True  # with it, text completions leave a session open for each event loop
    return litellm


def _http() -> Any:
    """Return litellm's module of HTTP clients. Streams that it opens late take no timeout but their client's."""
    from litellm.llms.custom_httpx import http_handler

    return http_handler


def _without_second_requests() -> None:
    """Have a lost connection raised, and not answered with a second request that no budget knows of.

    litellm's own client (before 1.108: anthropic, gemini, hosted_vllm and more) posts again over a new connection, whatever its
    settings of retries say.
    """
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    async def raised(*_: Any, **__: Any) -> None:
        error = sys.exception()  # the lost connection: litellm calls this while it handles it
        assert error is not None
        raise error

    if hasattr(AsyncHTTPHandler, "single_connection_post_request"):
        AsyncHTTPHandler.single_connection_post_request = raised


def _without_mcp() -> None:
    """Let litellm's responses API work where ``mcp`` is not installed.

    litellm (1.106) imports its proxy's MCP handler before it checks whether it is needed, and that module needs packages that
    litellm does not depend on. It is never needed here (``_skip_mcp_handler``), so an empty module replaces it.
    """
    if importlib.util.find_spec("mcp") is None:
        name = "litellm.responses.mcp.litellm_proxy_mcp_handler"
        module = types.ModuleType(name)
        vars(module)["LiteLLM_Proxy_MCP_Handler"] = None  # imported by name, and not used
        sys.modules.setdefault(name, module)


def chunk_maker() -> Callable[[str, int, str | None, str | None], Any]:
    """Return what makes litellm's chunk of a piece of an answer (model, number of the choice, text, thinking), for dspy."""
    _litellm()
    from litellm.types.utils import Delta, ModelResponseStream, StreamingChoices

    def make(model: str, index: int, text: str | None, reasoning: str | None) -> Any:
        more = {"reasoning_content": reasoning} if reasoning else {}
        delta = Delta(role="assistant", content=text, **more)
        return ModelResponseStream(model=model, choices=[StreamingChoices(index=index, delta=delta)])

    return make


class Wire:
    """Hold what the server has sent, as litellm tells its `logger_fn`: the body before litellm converts it.

    Attributes:
        body: a body of OpenAI's format; None for any other.
        other: a JSON body of another format.
    """

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.other: str = ""

    def __call__(self, details: dict[str, Any]) -> None:
        """Keep a body. One that litellm has had put into another form (`_AS_TOOL`) is left to it."""
        said: Any = details.get("original_response")
        if hasattr(said, "model_dump") and getattr(said, "choices", None):  # an object of OpenAI's SDK
            said = json.dumps(said.model_dump(exclude_unset=True, warnings=False), default=str)
        if not isinstance(said, str) or not said.startswith("{"):
            return
        if '"choices"' in said and _AS_TOOL not in said:
            self.body = said.encode("utf-8", "replace")
        else:
            self.other = said

    def reasons(self) -> list[str | None]:
        """Return the finish reasons in a body of another format, one per answer; none if it has none."""
        try:
            said = json.loads(self.other)
        except ValueError:
            return []
        if isinstance(candidates := said.get("candidates"), list):  # Gemini
            return [one.get("finishReason") if isinstance(one, dict) else None for one in candidates]
        found = [said[name] for name in _REASON_FIELDS if isinstance(said.get(name), str)]
        return found[:1]


_REASON_FIELDS = ("stop_reason", "stopReason", "finish_reason", "done_reason")
"""Fields of a body that hold the finish reason of its one answer: Anthropic's, Bedrock's, Cohere's, Ollama's."""
_AS_TOOL = '"json_tool_call"'
"""The tool that litellm has some models call for a `response_format`: only litellm can turn its arguments back into text."""


class _Reader:
    """One streamed answer, read from whatever litellm has returned for it.

    Attributes:
        began: when it was asked for, by `time.perf_counter`.
    """

    def __init__(self, request: Request, connection: Connection) -> None:
        self.began = time.perf_counter()
        self._answered = StreamedAnswer(self.began)
        self._chunks: Chunks | None = None
        self._connection = connection
        self._events = Events(self.began)
        self._http: Any = None
        self._lines: Iterator[bytes] | None = None
        self._request = request
        self._stream: Any = None

    def open(self, stream: Any) -> Generator[Any, None, None]:
        """Yield what the stream holds: bytes, chunks or events."""
        if getattr(stream, "completion_stream", stream) is None:
            stream.completion_stream = stream.make_call(client=_http().get_httpx_client({"timeout": self._connection.silence_s}))
        self._begin(stream)
        try:
            for piece in self._lines or (self._http.iter_bytes() if self._http is not None else stream):
                yield piece
                if self._answered.ended:
                    return
        finally:
            if self._http is not None:
                self._http.close()

    async def aopen(self, stream: Any) -> AsyncGenerator[Any, None]:
        """Do as `open`, without blocking the event loop."""
        if getattr(stream, "completion_stream", stream) is None:
            client = _http().get_async_httpx_client("ostinato", {"timeout": self._connection.silence_s})
            stream.completion_stream = await stream.make_call(client=client)
        self._begin(stream)
        try:
            async for piece in self._http.aiter_bytes() if self._http is not None else stream:
                yield piece
                if self._answered.ended:
                    return
        finally:
            if self._http is not None:
                await self._http.aclose()

    def take(self, piece: Any) -> None:
        """Take what was read."""
        if isinstance(piece, bytes):
            self._answered.feed([piece])
        elif self._chunks is not None:
            self._chunks.take(piece)
        else:
            self._events.take(piece)

    def failed(self, error: Exception, hear: Hear | None, asked: dict[str, Any]) -> bool:
        """Return whether to ask again, without a field that was refused. Raises LMError unless the answer had come."""
        if self._answered.ended or self._answered.is_whole:
            return False
        raised = mapped(error, self._request, self._connection, hear)
        if learn(raised, asked, self._request, self._connection):
            return True
        raise raised from None

    def response(self, hear: Hear | None) -> Response:
        """Return the answer. Raises LMError if it has broken off."""
        http = self._http
        headers = _headers(self._stream) if http is None else {name.lower(): value for name, value in http.headers.items()}
        if hear is not None:
            hear(headers)
        if self._request.model_type == "responses":
            self._events.check(self._request, self._connection)
            response = _from_responses(self._events.answer, self._request)
            return msgspec.structs.replace(response, first_token_s=self._events.first_token_s)
        if self._chunks is not None:
            given, told = self._chunks.finish()
            if given is not None:
                self._chunks.end(_native({"finish_reason": given}, told)["finish_reason"])
        response = self._answered.response(self._request, self._connection, headers)
        return _without_nulls(response) if self._chunks is not None else response

    def _begin(self, stream: Any) -> None:
        self._stream, self._http, self._lines = stream, response_of(stream), lines_of(stream)
        if self._http is None and self._lines is None and self._request.model_type == "chat":
            self._chunks = Chunks(stream, self._answered)


def _asked(request: Request, connection: Connection) -> dict[str, Any]:
    """Return the fields that ask for a streamed answer; none for text completions, of which litellm hides how they end."""
    if request.model_type == "text":
        return {}
    asked = stream_fields(request, connection)
    if request.model_type == "responses":  # the last event always holds the whole answer
        return {name: value for name, value in asked.items() if name != "stream_options"}
    return asked


def _arguments(
    request: Request, connection: Connection, wire: Wire, asked: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    ours = {"num_retries": 0, "max_retries": 0, "logger_fn": wire, **asked}
    arguments: dict[str, Any] = {**connection.extra, **request.params, **ours}
    provider, _, name = request.model.partition("/")
    if request.model_type == "text":
        # as dspy 2.6: text completions speak OpenAI's format, whatever the provider's prefix says
        arguments["model"] = f"text-completion-openai/{name or request.model}"
        arguments["prompt"] = request.prompt
    else:
        arguments["model"] = f"openai/{name}" if provider == "local" else request.model
        arguments["messages"] = request.messages
    if request.model_type == "responses":
        arguments["input"] = _as_input(arguments.pop("messages"))
        _rename_for_responses(arguments)
    if request.model_type == "responses" or "tools" in arguments:
        arguments["_skip_mcp_handler"] = True  # else litellm imports its proxy: see _without_mcp
    if connection.body:
        arguments["extra_body"] = {**arguments.get("extra_body", {}), **connection.body}
    access = {
        "api_base": connection.api_base,
        "api_key": connection.api_key,
        "extra_headers": connection.headers or None,
        "timeout": connection.silence_s if asked else connection.timeout_s,
    }
    return arguments | {key: value for key, value in access.items() if value is not None}


def _as_input(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return chat messages as input items of the responses API (OpenAI API reference, "Responses", 2025)."""
    items: list[dict[str, Any]] = []
    for message in messages:
        role, content = message["role"], message.get("content")
        if role == "tool":
            items.append({"type": "function_call_output", "call_id": message["tool_call_id"], "output": content})
            continue
        if content is not None:
            parts = content if isinstance(content, str) else [_as_part(part, role) for part in content]
            items.append({"role": role, "content": parts})
        items += [
            {"type": "function_call", "call_id": call["id"], **call["function"]} for call in message.get("tool_calls") or []
        ]
    return items


def _as_part(part: dict[str, Any], role: str) -> dict[str, Any]:
    if part.get("type") == "text":
        return {"type": "output_text" if role == "assistant" else "input_text", "text": part["text"]}
    if part.get("type") == "image_url":
        image = part["image_url"]
        return {"type": "input_image", "image_url": image} if isinstance(image, str) else _as_image(image)
    if part.get("type") == "file":
        return {"type": "input_file", **part["file"]}
    return part


def _as_image(image: dict[str, Any]) -> dict[str, Any]:
    return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail", "auto")}


def _rename_for_responses(arguments: dict[str, Any]) -> None:
    limit = arguments.pop("max_completion_tokens", None) or arguments.pop("max_tokens", None)
    if limit is not None:
        arguments["max_output_tokens"] = limit
    if effort := arguments.pop("reasoning_effort", None):
        arguments["reasoning"] = {"effort": effort}
    if form := arguments.pop("response_format", None):
        schema = form.get("json_schema")
        arguments["text"] = {"format": {"type": "json_schema", **schema} if schema else form}
    if tools := arguments.pop("tools", None):
        arguments["tools"] = [{"type": "function", **tool["function"]} if "function" in tool else tool for tool in tools]


def _tell(hear: Hear | None, answer: Any) -> None:
    """Pass on the server's headers."""
    if hear is not None:
        hear(_headers(answer))


def _despite(error: Exception, wire: Wire, request: Request, connection: Connection, hear: Hear | None) -> Response:
    """Return the answer that litellm could not convert, if the server sent one. Raises LMError."""
    if wire.body is not None:
        return _without_nulls(read(wire.body, request, connection))
    raised = mapped(error, request, connection, hear)
    if wire.other and isinstance(raised, MalformedError):  # the body may say more
        return read(wire.other.encode("utf-8", "replace"), request, connection)
    raise raised from None


def _response(answer: Any, wire: Wire, request: Request, connection: Connection) -> Response:
    """Return the answer as `DirectTransport` reads it: the server's own body if it is of OpenAI's format, else litellm's."""
    if request.model_type == "responses":
        return _from_responses(answer, request)
    if wire.body is not None:
        return _without_nulls(read(wire.body, request, connection, _headers(answer)))
    plain = _plain(answer)
    reasons = wire.reasons()
    plain["choices"] = [_native(choice, told) for choice, told in zip_longest(plain.get("choices") or [], reasons) if choice]
    response = read(json.dumps(plain, default=str).encode(), request, connection)
    return msgspec.structs.replace(response, **_usage(answer))


def _without_nulls(response: Response) -> Response:
    """Return a response whose log probabilities have no nulls: OpenAI's SDK, which litellm uses, adds some."""
    if all(choice.logprobs is None for choice in response.choices):
        return response
    choices = [msgspec.structs.replace(choice, logprobs=_some(choice.logprobs)) for choice in response.choices]
    return msgspec.structs.replace(response, choices=choices)


def _some(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _some(item) for name, item in value.items() if item is not None}
    return [_some(item) for item in value] if isinstance(value, list) else value


def _native(choice: dict[str, Any], told: str | None) -> dict[str, Any]:
    """Return a choice with the provider's own finish reason (`told`), if litellm's word for it means something else.

    litellm turns those that it does not know into ``stop``.
    """
    given = choice.get("finish_reason")
    native = told or (choice.get("provider_specific_fields") or {}).get("native_finish_reason") or given
    same = is_known(native) and ending_of(native) == ending_of(given)
    return {**choice, "finish_reason": given if same else native, "provider_specific_fields": None}


def _from_responses(answer: Any, request: Request) -> Response:
    texts: list[str] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    if (status := getattr(answer, "status", None)) in ("failed", "cancelled"):
        told = (_plain(getattr(answer, "error", None)) or {}).get("message") or f"the answer has the status {status!r}"
        raise failure(None, told, request=request, kind=ServerError)
    finish = (_plain(getattr(answer, "incomplete_details", None)) or {}).get("reason") or (
        status if status == "incomplete" else None
    )
    finish = {None: "stop", "max_output_tokens": "length"}.get(finish, finish)
    for item in getattr(answer, "output", None) or []:
        plain = _plain(item)
        if plain.get("type") == "message":
            for part in plain.get("content") or []:
                finish = "refusal" if part.get("refusal") else finish
                texts.append(part.get("text") or part.get("refusal") or "")
        elif plain.get("type") == "reasoning":
            reasoning += [part.get("text") or "" for part in [*(plain.get("summary") or []), *(plain.get("content") or [])]]
        elif plain.get("type") == "function_call":
            function = {"name": plain.get("name"), "arguments": plain.get("arguments")}
            calls.append({"id": plain.get("call_id"), "type": "function", "function": function})
    if not texts and not calls and finish == "stop":
        raise malformed(request, "it has no output")
    text = _encodable("".join(texts)) if texts else None
    return Response(
        id=_text(answer, "id"),
        model=_text(answer, "model"),
        choices=[Choice(text, finish, None, calls or None, _encodable("\n".join(reasoning)) or None)],
        created=int(getattr(answer, "created_at", 0) or 0) or None,
        **_usage(answer),
    )


def _usage(answer: Any) -> dict[str, Any]:
    """Return the fields of a Response that say what the answer has used."""
    plain, headers = _plain(getattr(answer, "usage", None)) or {}, _headers(answer)
    cost_usd, cost_from = usage.named_cost(plain, headers) or (None, None)
    return {"usage": usage.read(plain), "cost_usd": cost_usd, "cost_from": cost_from}


def _headers(answer: Any) -> dict[str, str]:
    """Return the server's headers, which litellm attaches to the answer under prefixed names."""
    kept = (getattr(answer, "_hidden_params", None) or {}).get("additional_headers") or {}
    return {name.lower().removeprefix("llm_provider-"): str(value) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    """Return pydantic models and the like as plain data."""
    if value is None or isinstance(value, dict):
        return value
    dump = getattr(value, "model_dump", None)
    return dump(exclude_none=True) if dump else value


def _text(answer: Any, name: str) -> str | None:
    value = getattr(answer, name, None)
    return str(value) if value else None


def _encodable(text: str | None) -> str | None:
    """Return text that can be written as UTF-8: half of a surrogate pair, which can end a cut-off answer, becomes ``?``."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()
