"""Speak OpenAI's wire format, at far less cost than litellm."""

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
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from runner.errors import AuthenticationError, BadRequestError, ConnectionLostError, LMError, LMTimeoutError
from runner.network import general, http1
from runner.network.said import said
from runner.secrets import remember
from runner.transport.answer import read
from runner.transport.asking import learn, stream_fields
from runner.transport.base import failure, refused, silent, too_late
from runner.transport.body import Bodies
from runner.transport.embedding import read_vector
from runner.transport.streamed import StreamedAnswer
from runner.transport.users import Users

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from runner.transport.base import Hear
    from runner.types import Connection, Request, Response

T = TypeVar("T")

OPENAI_URL = "https://api.openai.com/v1"
PROVIDERS = frozenset({"openai", "local", "text-completion-openai"})
"""Prefixes of models whose servers speak OpenAI's wire format by definition."""

END_S = 1.0
"""Seconds in which a body must end after its last event for the connection to be kept."""

_PATHS = {"chat": "/chat/completions", "text": "/completions", "embedding": "/embeddings"}


class DirectTransport:
    """Speak OpenAI's chat and text completions, streamed or not, and embeddings. Connections stay open, per event loop.

    Results, errors and usage are those of `LiteLLMTransport` (tests/contract runs both against one server). Calls
    from threads without a loop share one.
    """

    def prepare(self, request: Request, connection: Connection) -> None:
        """Do nothing: what sending needs is loaded in milliseconds."""

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
        route = self._route
        if route is None or not route.leads(request, connection):
            route = self._route = self._way(request, connection)
        if connection.stream and request.model_type != "embedding" and (asked := stream_fields(request, connection)):
            return await self._streamed(route, request, connection, hear, asked)
        try:
            answer = await route.ask(request.model_type, route.bodies.of(request))
        except (OSError, ValueError) as error:
            raise _without_answer(error, request, connection) from None
        if hear is not None:
            hear(answer.headers)
        if answer.status >= 400:  # noqa: PLR2004
            raise refused(answer.status, said(answer.body), answer.headers, request=request, connection=connection)
        reads = read_vector if request.model_type == "embedding" else read
        return reads(answer.body, request, connection, answer.headers)

    async def _streamed(
        self, route: _Route, request: Request, connection: Connection, hear: Hear | None, asked: dict[str, Any]
    ) -> Response:
        """Ask for a streamed answer, and put it together. A server that answers at once (JSON) is taken at its word."""
        body = route.bodies.of(request, asked)
        answered = StreamedAnswer(time.perf_counter())
        try:
            answer = await route.ask(request.model_type, body, answered, connection.silence_s)
        except (OSError, ValueError) as error:
            raise _without_answer(error, request, connection) from None
        if hear is not None:
            hear(answer.headers)
        if answer.status >= 400:  # noqa: PLR2004
            refusal = refused(answer.status, said(answer.body), answer.headers, request=request, connection=connection)
            if learn(refusal, asked, request, connection):
                return await self.acomplete(request, connection, hear)
            raise refusal
        return answered.response(request, connection, answer.headers)

    def _way(self, request: Request, connection: Connection) -> _Route:
        """Return a route for a request; those before it are not needed any more."""
        if not self.speaks(request, connection):
            why = "transport: direct speaks OpenAI's chat and text formats only (openai/..., local/...); use auto or litellm"
            raise failure(None, why, request=request, kind=BadRequestError)
        found = _route(request, connection)
        _users.join(self)
        return found

    async def aclose(self) -> None:
        """Close the connections of this event loop, unless another transport uses them: its requests in flight are paid for."""
        self._route = None
        if _users.leave(self):
            await _close()


class _Reply(NamedTuple):
    """An answer: its HTTP status, its headers (names in lower case), and its body, empty if it was streamed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Route:
    """Everything that is the same for all requests to a model over one connection in one event loop.

    Attributes:
        bodies: encodes their bodies.

    Raises:
        ValueError: the address, or a header, cannot be sent.
    """

    def __init__(self, model: str, connection: Connection, base: str, headers: dict[str, str]) -> None:
        self.bodies = Bodies(connection)
        self._model = model
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._headers = headers
        self._urls = {model_type: base + path for model_type, path in _PATHS.items()}
        self._heads = {model_type: http1.head_of(url, headers) for model_type, url in self._urls.items()}
        self._origin = None if _needs_more(base) else _origin(base)

    def leads(self, request: Request, connection: Connection) -> bool:
        """Return whether a request can be sent this way, from the running event loop."""
        return (
            connection is self._connection
            and request.model == self._model
            and request.model_type in _PATHS
            and self._loop is asyncio.get_running_loop()
        )

    async def ask(
        self, model_type: str, body: bytes, answered: StreamedAnswer | None = None, silence_s: float | None = None
    ) -> _Reply:
        """Send a request, and read its answer: whole, or as events into `answered`.

        Raises:
            OSError, ValueError: those of `http1`.
        """
        origin = self._origin
        if origin is None:
            return await self._ask_generally(model_type, body, answered, silence_s)
        connection = origin.idle() or await origin.connect()
        try:
            connection.send(self._heads[model_type], body)
            if answered is None:
                await connection.whole()
            else:
                connection.silence(silence_s or 0.0)
                await _read(connection, answered)
            reply = _Reply(connection.status, connection.headers, connection.read())
        except BaseException:
            connection.abort()
            raise
        origin.end(connection)
        if reply.status in _REDIRECTS and "location" in reply.headers:
            return await self._ask_generally(model_type, body, answered, silence_s)
        return reply

    async def _ask_generally(
        self, model_type: str, body: bytes, answered: StreamedAnswer | None, silence_s: float | None
    ) -> _Reply:
        exchange = await general.begin(self._urls[model_type], self._headers, body, silence_s)
        try:
            if answered is None:
                await exchange.whole()
            else:
                await _read(exchange, answered)
            return _Reply(exchange.status, exchange.headers, exchange.read())
        finally:
            exchange.end()


async def _read(answer: http1.Connection | general.Exchange, answered: StreamedAnswer) -> None:
    """Read a streamed answer. What breaks after its last event is passed over; a refusal is read whole.

    After ``[DONE]``, the end of the body is awaited for a moment, so that the connection is kept.
    """
    await answer.head()
    if answer.status >= 300:  # noqa: PLR2004
        await answer.whole()
        return
    try:
        while pieces := await answer.more():
            answered.feed(pieces)
            if answered.ended:
                if not answer.ended:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(END_S):
                            await answer.whole()
                return
    except (OSError, ValueError):
        if not (answered.ended or answered.is_whole):
            raise


def _route(request: Request, connection: Connection) -> _Route:
    if request.model.startswith("local/") and not connection.api_base:
        why = "it is not launched: call lm.launch() first, or keep a server with `ostinato launch`"
        raise failure(None, why, request=request, kind=BadRequestError)
    base = (connection.api_base or OPENAI_URL).rstrip("/")
    headers = {"content-type": "application/json", **connection.headers, **_authorization(request, connection)}
    try:
        return _Route(request.model, connection, base, headers)
    except ValueError as error:
        raise failure(None, f"malformed address: {error}", request=request, connection=connection) from None


_LOOPBACK = re.compile(r"^https?://(?:localhost|127\.[\d.]+|\[::1\])(?:[:/]|$)", re.IGNORECASE)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_origins: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, http1.Origin]] = weakref.WeakKeyDictionary()

_users = Users()


def _origin(base: str) -> http1.Origin:
    """Return the connections of this event loop to a server, which all transports share."""
    origins = _origins.setdefault(asyncio.get_running_loop(), {})
    parts = urlsplit(base)
    key = f"{parts.scheme}://{parts.netloc}"
    if key not in origins:
        origins[key] = http1.Origin(base)
    return origins[key]


def _needs_more(base: str) -> bool:
    """Return whether an address needs a general client: one behind a proxy, or with a user name. This machine has no proxy."""
    parts = urlsplit(base)
    if "@" in parts.netloc:
        return True
    return _LOOPBACK.match(base) is None and parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")


async def _close() -> None:
    for origin in _origins.pop(asyncio.get_running_loop(), {}).values():
        origin.close()
    await general.close()


def _without_answer(error: Exception, request: Request, connection: Connection) -> LMError:
    """Return the error for a request whose connection has failed: before it was sent, or before it was answered."""
    if isinstance(error, http1.SilentError):
        return silent(request, connection)
    if isinstance(error, TimeoutError):
        late = failure(None, "no connection in time", request=request, connection=connection, kind=LMTimeoutError)
        late.sent = False
        return late
    kind = ConnectionLostError if isinstance(error, http1.DisconnectedError) else None
    broken = failure(None, str(error) or type(error).__name__, request=request, connection=connection, kind=kind)
    broken.sent = kind is not None
    return broken


def _authorization(request: Request, connection: Connection) -> dict[str, str]:
    key = connection.api_key or os.environ.get("OPENAI_API_KEY", "")
    if not key:
        raise failure(None, "OPENAI_API_KEY is not set", request=request, connection=connection, kind=AuthenticationError)
    remember(key)
    return {"authorization": f"Bearer {key}"}


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
