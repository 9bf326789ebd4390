"""Speak OpenAI's wire format over aiohttp, at far less cost than litellm. The only module that imports aiohttp."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import re
import threading
import time
import weakref
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runner.errors import AuthenticationError, BadRequestError, ConnectionLostError, LMError, LMTimeoutError
from runner.network.said import said
from runner.secrets import remember
from runner.transport.answer import read
from runner.transport.asking import learn, stream_fields
from runner.transport.base import failure, refused, silent, too_late
from runner.transport.streamed import StreamedAnswer
from runner.transport.users import Users

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    import aiohttp

    from runner.transport.base import Hear
    from runner.types import Connection, Request, Response

T = TypeVar("T")

OPENAI_URL = "https://api.openai.com/v1"
PROVIDERS = frozenset({"openai", "local", "text-completion-openai"})
"""Prefixes of models whose servers speak OpenAI's wire format by definition."""

CONNECT_TIMEOUT_S = 30.0
END_S = 1.0
"""Seconds in which a body must end after its last event for the connection to be kept."""

_PATHS = {"chat": "/chat/completions", "text": "/completions"}


class DirectTransport:
    """Speak OpenAI's chat and text completions, streamed or not. Connections stay open, per event loop.

    Results, errors and usage are those of `LiteLLMTransport` (tests/contract runs both against one server). Calls
    from threads without a loop share one.
    """

    def prepare(self, request: Request, connection: Connection) -> None:  # noqa: ARG002 - Transport
        """Import aiohttp."""
        import aiohttp  # noqa: F401

    @staticmethod
    def speaks(request: Request, connection: Connection) -> bool:
        """Return whether this transport is exact for the request: OpenAI's format, chat or text, and no Azure-style arguments."""
        known = request.model.partition("/")[0] in PROVIDERS
        return known and request.model_type in _PATHS and not connection.extra

    def __init__(self) -> None:
        self._route: _Route | None = None

    def complete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Send the request and wait. Raises LMError."""
        return _shared_loop().run(self._within(request, connection, hear))

    async def _within(self, request: Request, connection: Connection, hear: Hear | None) -> Response:
        try:
            async with asyncio.timeout(connection.timeout_s):
                return await self.acomplete(request, connection, hear)
        except LMError:
            raise
        except TimeoutError:
            raise too_late(request, connection) from None

    async def acomplete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Do as `complete`, without blocking the event loop. The caller sets the timeout."""
        import aiohttp

        route = self._route
        if route is None or route.connection is not connection or not route.usable():
            route = self._route = _route(request, connection)
            _users.join(self)
        if request.model_type not in route.urls or not self.speaks(request, connection):
            why = "transport: direct speaks OpenAI's chat and text formats only (openai/..., local/...); use auto or litellm"
            raise failure(None, why, request=request, kind=BadRequestError)
        if connection.stream and (asked := stream_fields(request, connection)):
            return await self._streamed(route, request, connection, hear, asked)
        try:
            async with route.session.post(
                route.urls[request.model_type], data=_encode(_body(request, connection)), headers=route.headers
            ) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _without_answer(error, request, connection) from None
        if hear is not None:
            hear(answer.headers)
        if answer.status >= 400:  # noqa: PLR2004
            raise _refused(answer.status, data, answer.headers, request, connection)
        return read(data, request, connection, answer.headers)

    async def _streamed(
        self, route: _Route, request: Request, connection: Connection, hear: Hear | None, asked: dict[str, Any]
    ) -> Response:
        """Ask for a streamed answer, and put it together. A server that answers at once (JSON) is taken at its word."""
        import aiohttp

        body = _encode(_body(request, connection, asked))
        data, answered = b"", StreamedAnswer(time.perf_counter())
        url, quiet = route.urls[request.model_type], _with_silence(connection.silence_s)
        try:
            async with route.session.post(url, data=body, headers=route.headers, timeout=quiet) as answer:
                if answer.status >= 400:  # noqa: PLR2004
                    data = await answer.read()
                else:
                    await _read_events(answer.content, answered)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if not (answered.ended or answered.is_whole):
                raise _without_answer(error, request, connection) from None
        if hear is not None:
            hear(answer.headers)
        if answer.status >= 400:  # noqa: PLR2004
            refusal = _refused(answer.status, data, answer.headers, request, connection)
            if learn(refusal, asked, request, connection):
                return await self.acomplete(request, connection, hear)
            raise refusal
        return answered.response(request, connection, answer.headers)

    async def aclose(self) -> None:
        """Close the connections of this event loop, unless another transport uses them: its requests in flight are paid for."""
        self._route = None
        if _users.leave(self):
            await _close()


class _Route:
    """Everything that is the same for all requests over one connection in one event loop."""

    def __init__(self, connection: Connection, base: str, headers: dict[str, str]) -> None:
        from multidict import CIMultiDict
        from yarl import URL

        self.connection = connection
        self.session = _session(base)
        self._loop = asyncio.get_running_loop()
        self.headers = CIMultiDict(headers)
        self.urls = {model_type: URL(base + path) for model_type, path in _PATHS.items()}

    def usable(self) -> bool:
        """Return whether it belongs to the running event loop and its session is open."""
        return self._loop is asyncio.get_running_loop() and not self.session.closed


def _route(request: Request, connection: Connection) -> _Route:
    if request.model.startswith("local/") and not connection.api_base:
        why = "it is not launched: call lm.launch() first, or keep a server with `ostinato launch`"
        raise failure(None, why, request=request, kind=BadRequestError)
    base = (connection.api_base or OPENAI_URL).rstrip("/")
    headers = {"content-type": "application/json", **connection.headers, **_authorization(request, connection)}
    try:
        return _Route(connection, base, headers)
    except ValueError as error:
        raise failure(None, f"malformed address: {error}", request=request, connection=connection) from None


_LOOPBACK = re.compile(r"^https?://(?:localhost|127\.[\d.]+|\[::1\])(?:[:/]|$)", re.IGNORECASE)
_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bool, aiohttp.ClientSession]] = weakref.WeakKeyDictionary()

_users = Users()


def _session(base: str) -> aiohttp.ClientSession:
    """Return the session of this event loop, shared by all transports; requests to this machine never use a proxy."""
    import aiohttp

    proxied = _LOOPBACK.match(base) is None
    sessions = _sessions.setdefault(asyncio.get_running_loop(), {})
    if proxied not in sessions:
        sessions[proxied] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the rate limiter bounds requests in flight; a second bound would hide that
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            trust_env=proxied,
        )
    return sessions[proxied]


async def _close() -> None:
    for session in _sessions.pop(asyncio.get_running_loop(), {}).values():
        await session.close()


_encode = msgspec.json.Encoder().encode


async def _read_events(content: aiohttp.StreamReader, answered: StreamedAnswer) -> None:
    """Read a stream to its end. After ``[DONE]``, the end of the body is awaited for a moment, so that the connection is kept."""
    while piece := await content.readany():
        answered.feed(piece)
        if answered.ended:
            if not content.is_eof():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_S):
                        await content.wait_eof()
            return


@functools.lru_cache(maxsize=64)
def _with_silence(silence_s: float) -> aiohttp.ClientTimeout:
    """Return the limits of a streamed answer; making them takes as long as reading ten events."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s)


def _without_answer(error: Exception, request: Request, connection: Connection) -> LMError:
    """Return the error for a request whose connection has failed: before it was sent, or before it was answered."""
    import aiohttp

    if isinstance(error, aiohttp.SocketTimeoutError):
        return silent(request, connection)
    if isinstance(error, TimeoutError):
        late = failure(None, "no connection in time", request=request, connection=connection, kind=LMTimeoutError)
        late.sent = False
        return late
    kind = ConnectionLostError if _was_sent(error) else None
    broken = failure(None, str(error) or type(error).__name__, request=request, connection=connection, kind=kind)
    broken.sent = kind is not None
    return broken


def _was_sent(error: Exception) -> bool:
    """Return whether the connection stood when it broke."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError):
        return False
    return isinstance(
        error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | ConnectionError
    )


def _body(request: Request, connection: Connection, streaming: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    params = {key: value for key, value in request.params.items() if key != "extra_body"}
    asked = {"prompt": request.prompt} if request.model_type == "text" else {"messages": request.messages}
    return {
        "model": request.model.partition("/")[2],
        **asked,
        **params,
        **streaming,
        **request.params.get("extra_body", {}),
        **connection.body,
    }


def _authorization(request: Request, connection: Connection) -> dict[str, str]:
    key = connection.api_key or os.environ.get("OPENAI_API_KEY", "")
    if not key:
        raise failure(None, "OPENAI_API_KEY is not set", request=request, connection=connection, kind=AuthenticationError)
    remember(key)
    return {"authorization": f"Bearer {key}"}


def _refused(status: int, data: bytes, headers: Any, request: Request, connection: Connection) -> LMError:
    """Return the error for an HTTP status from 400 up."""
    lower = {key.lower(): value for key, value in headers.items()}
    return refused(status, said(data), lower, request=request, connection=connection)


class _Loop:
    """An event loop in its own thread, for calls from code without one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="ostinato direct", daemon=True).start()
        atexit.register(lambda: self.run(_close()))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


@functools.cache
def _shared_loop() -> _Loop:
    return _Loop()
