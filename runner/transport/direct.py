"""OpenAI's wire format over aiohttp, for every server that speaks it: far cheaper than litellm. The one door to aiohttp."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import re
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runner.errors import AuthenticationError, BadRequestError, LMError, LMTimeoutError
from runner.secrets import remember
from runner.transport.base import classify, failure, malformed
from runner.types import Choice, Request, Response, Usage

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import aiohttp

    from runner.types import Connection

T = TypeVar("T")

OPENAI_URL = "https://api.openai.com/v1"
PROVIDERS = frozenset({"openai", "local", "text-completion-openai"})
"""Prefixes of models whose servers speak OpenAI's wire format by definition."""

_PATHS = {"chat": "/chat/completions", "text": "/completions"}


class DirectTransport:
    """Speaks OpenAI's chat and text completions, without streaming. Connections are kept open, per event loop.

    Results, errors and usage are those of `LiteLLMTransport` (tests/contract runs both against one server). A call from a thread
    without a loop runs in a loop that all such calls share.
    """

    @staticmethod
    def speaks(request: Request, connection: Connection) -> bool:
        """Whether this transport is exact for the request: OpenAI's format, chat or text, and no Azure-style arguments."""
        known = request.model.partition("/")[0] in PROVIDERS
        return known and request.model_type in _PATHS and not connection.extra

    def complete(self, request: Request, connection: Connection) -> Response:
        """Ask and wait. Raises LMError."""
        return _shared_loop().run(self.acomplete(request, connection))

    async def acomplete(self, request: Request, connection: Connection) -> Response:
        """Ask without blocking the event loop. Raises LMError."""
        import aiohttp

        if not self.speaks(request, connection):
            why = "transport: direct speaks OpenAI's chat and text formats only (openai/..., local/...); use auto or litellm"
            raise failure(None, why, request=request, kind=BadRequestError)
        if request.model.startswith("local/") and not connection.api_base:
            why = "it is not launched: call lm.launch() first, or keep a server with `ostinato launch`"
            raise failure(None, why, request=request, kind=BadRequestError)
        base = (connection.api_base or OPENAI_URL).rstrip("/")
        headers = {"content-type": "application/json", **connection.headers, **_authorization(request, connection)}
        timeout = aiohttp.ClientTimeout(total=connection.timeout_s)
        try:
            async with _session(base).post(
                base + _PATHS[request.model_type], data=_encode(_body(request)), headers=headers, timeout=timeout
            ) as answer:
                data = await answer.read()
        except TimeoutError:
            waited = f"no answer within {connection.timeout_s:g} s" if connection.timeout_s else "no answer in time"
            raise failure(None, waited, request=request, connection=connection, kind=LMTimeoutError) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise failure(None, str(error) or type(error).__name__, request=request, connection=connection) from None
        if answer.status >= 400:  # noqa: PLR2004
            raise _refused(answer.status, data, answer.headers, request, connection)
        return _response(data, request)

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        await _close()


_LOOPBACK = re.compile(r"^https?://(?:localhost|127\.[\d.]+|\[::1\])(?:[:/]|$)", re.IGNORECASE)
_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bool, aiohttp.ClientSession]] = weakref.WeakKeyDictionary()


def _session(base: str) -> aiohttp.ClientSession:
    """The connections of this event loop, shared by all transports; those to this machine never go through a proxy."""
    import aiohttp

    proxied = _LOOPBACK.match(base) is None
    sessions = _sessions.setdefault(asyncio.get_running_loop(), {})
    if proxied not in sessions:
        # the limiter bounds what is in flight; a second bound here would only hide it
        sessions[proxied] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=proxied)
    return sessions[proxied]


async def _close() -> None:
    for session in _sessions.pop(asyncio.get_running_loop(), {}).values():
        await session.close()


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _AnswerChoice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Tokens(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Answer(msgspec.Struct):
    choices: list[_AnswerChoice]
    id: str | None = None
    model: str | None = None
    created: int | None = None
    system_fingerprint: str | None = None
    usage: _Tokens | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Answer, strict=False).decode


def _body(request: Request) -> dict[str, Any]:
    params = {key: value for key, value in request.params.items() if key != "extra_body"}
    asked = {"prompt": request.prompt} if request.model_type == "text" else {"messages": request.messages}
    return {"model": request.model.partition("/")[2], **asked, **params, **request.params.get("extra_body", {})}


def _authorization(request: Request, connection: Connection) -> dict[str, str]:
    key = connection.api_key or os.environ.get("OPENAI_API_KEY", "")
    if not key:
        raise failure(None, "OPENAI_API_KEY is not set", request=request, connection=connection, kind=AuthenticationError)
    remember(key)
    return {"authorization": f"Bearer {key}"}


def _response(data: bytes, request: Request) -> Response:
    try:
        answer = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if (mended := _mended(data)) is not None:
            return _response(mended, request)
        raise malformed(request, f"{error}: {data[:200].decode(errors='replace')}" if data.strip() else "it is empty") from None
    if not answer.choices:
        raise malformed(request, "it has no choices")
    return Response(
        id=answer.id,
        model=answer.model,
        choices=[_choice(choice, request) for choice in answer.choices],
        usage=_usage(answer.usage) if answer.usage else None,
        system_fingerprint=answer.system_fingerprint,
        created=answer.created,
    )


def _mended(data: bytes) -> bytes | None:
    """JSON with half of a surrogate pair in it, as a cut-off answer may end with, as UTF-8 with ``?`` there; else None."""
    try:
        text = json.dumps(json.loads(data), ensure_ascii=False)
    except ValueError:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
    return None


def _choice(choice: _AnswerChoice, request: Request) -> Choice:
    message = choice.message
    if message is None:
        if choice.text is None:
            raise malformed(request, "it has no text")
        return Choice(choice.text, choice.finish_reason, choice.logprobs)
    text, finish_reason = message.content, choice.finish_reason
    if text is None and message.refusal:
        text, finish_reason = message.refusal, "refusal"
    calls = [msgspec.to_builtins(call) for call in message.tool_calls] if message.tool_calls else None
    return Choice(text, finish_reason, choice.logprobs, calls, message.reasoning_content or message.reasoning)


def _usage(tokens: _Tokens) -> Usage:
    prompt, completion = tokens.prompt_tokens or 0, tokens.completion_tokens or 0
    cached = tokens.prompt_tokens_details.cached_tokens if tokens.prompt_tokens_details else 0
    reasoning = tokens.completion_tokens_details.reasoning_tokens if tokens.completion_tokens_details else 0
    return Usage(prompt, completion, tokens.total_tokens or prompt + completion, cached or 0, reasoning or 0)


def _refused(status: int, data: bytes, headers: Any, request: Request, connection: Connection) -> LMError:
    """The error for an HTTP status of 400 and more; servers say why as ``{"error": {"message", "code", "type"}}``, or plainly."""
    text = data[:2000].decode(errors="replace")
    words = text
    try:
        said = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = None
    if isinstance(said, dict):
        error = said.get("error", said)
        if isinstance(error, dict):
            text = str(error.get("message") or text)
            words = f"{error.get('code')} {error.get('type')} {text}"
        elif isinstance(error, str):
            text = words = error
    lower = {key.lower(): value for key, value in headers.items()}
    return failure(
        status, text or str(status), request=request, connection=connection, headers=lower, kind=classify(status, words)
    )


class _Loop:
    """An event loop in a thread of its own, for calls from code that has none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="ostinato direct", daemon=True).start()
        atexit.register(lambda: self.run(_close()))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


@functools.cache
def _shared_loop() -> _Loop:
    return _Loop()
