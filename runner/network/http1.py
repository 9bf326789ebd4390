"""Send POST requests over HTTP/1.1 and keep their connections open. The only module that imports httptools.

For what nearly all requests to a model are: one address, no proxy, a body at once. A call costs less than half of the CPU that it
costs with a general client (tests/bench/RESULTS.md), which does the rest (`runner.network.general`): proxies, redirects, user
names in addresses.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
import zlib
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_TIMEOUT_S = 30.0
IDLE_S = 15.0
"""A connection that has been idle for longer is not used again: the server may be about to close it."""

_END_OF_BODY = frozenset({"content-length", "transfer-encoding"})
_UNSENT = "\r\n\0"
_USER_AGENT = "ostinato"
"""Some providers' firewalls refuse requests that do not say what sends them."""
_BODILESS = (204, 304)
_NAMES_KEPT = 256
"""Names of headers that are kept as text: servers send the same ones with each answer."""


class DisconnectedError(ConnectionError):
    """The connection was closed after the request was sent, before its answer was whole."""


class SilentError(TimeoutError):
    """Nothing has come for too long since the request was sent."""


class NotHTTPError(ValueError):
    """The server's answer is not HTTP."""


class Origin:
    """The connections to one server, in one event loop.

    Args:
        url: an address there, ``http(s)://host[:port]/...``.

    Raises:
        ValueError: it is not an http(s) URL.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is not an http(s) URL")
        self._host = parts.hostname
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._idle: deque[Connection] = deque()

    def idle(self) -> Connection | None:
        """Return a connection that can be used again, None without one. `end` takes it back."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and time.monotonic() - connection.idle_since < IDLE_S:
                return connection
            connection.abort()
        return None

    def end(self, connection: Connection) -> None:
        """Keep a connection for the next request if its answer was read to the end, and the server keeps it; else close it."""
        if connection.ended and connection.usable:
            connection.silence(0.0)
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().abort()

    async def connect(self) -> Connection:
        """Return a new connection, which `end` takes back.

        Raises:
            TimeoutError: there is no connection in time.
            OSError: there is no connection.
        """
        loop = asyncio.get_running_loop()
        secure: dict[str, Any] = {"ssl": _tls(), "server_hostname": self._host} if self._tls else {}
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(Connection, self._host, self._port, **secure)
        except TimeoutError:
            raise TimeoutError("no connection in time") from None
        except OSError as error:
            raise OSError(f"cannot connect to {self._host}:{self._port}: {error.strerror or error}") from error
        return connection


class Connection(asyncio.Protocol):
    """One connection, with one request at a time.

    Attributes:
        status: the HTTP status of the answer; 0 until it has come.
        headers: of the answer, names in lower case.
        ended: whether the whole answer has come.
        idle_since: when it was last given back, by `time.monotonic`.
    """

    def __init__(self) -> None:
        from httptools import HttpParserError, HttpResponseParser

        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # a streamed answer has a piece for each event: no Python code runs for it
        self._parser = HttpResponseParser(self)
        self._unreadable = HttpParserError
        self._transport: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._wants_all = True
        self._error: Exception | None = None
        self._silence_s = 0.0
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._listens_at = 0.0
        self.idle_since = 0.0
        self._begin()
        self.ended = True

    def _begin(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._pieces.clear()
        self._count = 0
        self._unpack: Any = None
        self._until_closed = True
        self.ended = False

    @property
    def usable(self) -> bool:
        """Return whether another request may be sent."""
        return self._error is None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes) -> None:
        """Send a request.

        Args:
            head: the request line and the headers, as `head_of` makes them.
            body: the body.
        """
        self._begin()
        self._transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))

    async def whole(self) -> None:
        """Wait for the end of the answer. Raises `DisconnectedError` and `NotHTTPError`."""
        self._wants_all = True
        while not self.ended:
            await self._news()

    async def head(self) -> None:
        """Wait for the status and the headers. Raises `DisconnectedError`, `NotHTTPError` and `SilentError`."""
        self._wants_all = False
        while not self.status:
            await self._news()

    async def more(self) -> list[bytes]:
        """Wait for a part of the body, and return it, in its chunks; empty at its end. Raises as `head`."""
        self._wants_all = False
        while not (pieces := self._came()) and not self.ended:
            await self._news()
        return pieces

    def read(self) -> bytes:
        """Return what has come of the body, once. Raises `NotHTTPError` if it cannot be unpacked."""
        pieces = self._came()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _came(self) -> list[bytes]:
        pieces = self._pieces[: self._count] if self.ended else self._pieces.copy()  # what comes after the answer is left out
        self._pieces.clear()
        if self._unpack is None or not (pieces or self.ended):
            return pieces
        try:
            body = self._unpack.decompress(b"".join(pieces)) + (self._unpack.flush() if self.ended else b"")
        except zlib.error as error:
            raise NotHTTPError(f"not HTTP: {error}") from None
        return [body] if body else []

    def silence(self, seconds: float) -> None:
        """From now on, fail with `SilentError` when nothing has come for so many seconds; 0: never.

        The timer of an earlier request runs on: it finds out by itself when to look again.
        """
        self._silence_s = seconds
        if seconds:
            self._heard = self._loop.time()
            if self._timer is None or self._listens_at > self._heard + seconds:
                self._listen_at(self._heard + seconds)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()

    def _news(self) -> asyncio.Future[None]:
        """Return what is done when more has come. Raises what has ended the connection."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        return self._waiter

    def _listen_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._listens_at = self._loop.call_at(at, self._listen), at

    def _listen(self) -> None:
        """Look whether the server has been silent for too long; the timer runs once for each such time, not for each piece."""
        self._timer = None
        if not self._silence_s or self.ended:
            return
        until = self._heard + self._silence_s
        if until > max(self._listens_at, self._loop.time()):
            self._listen_at(until)
        else:
            self._fail(SilentError(f"nothing came for {self._silence_s:g} s"))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _spoiled(self, error: Exception) -> None:
        """Close the connection after what cannot be parsed; an answer that has ended stays good."""
        if self.ended:
            self._error = NotHTTPError("more has come than one answer")
            self._wake()
        else:
            self._fail(NotHTTPError(f"not HTTP: {error}"))
        self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._error)

    # --- asyncio

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if self.ended:  # nobody has asked
            self._error = self._error or NotHTTPError("more has come than one answer")
            self._transport.abort()
            return
        self._heard = self._loop.time() if self._silence_s else 0.0
        try:
            self._parser.feed_data(data)
        except self._unreadable as error:
            self._spoiled(error)
            return
        if self.ended or (not self._wants_all and self.status):
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """End an answer that ends with its connection; any other is lost."""
        if not self.ended and self.status and self._until_closed and error is None:
            self._end()
            self._wake()
        self._error = self._error or DisconnectedError(str(error) if error else "the server has closed the connection")
        if not self.ended:
            self._fail(self._error)

    # --- httptools

    def on_message_begin(self) -> None:
        """Refuse a second answer."""
        if self.ended:
            self._error = NotHTTPError("more has come than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        if self.ended:
            return
        known = _names.get(name)
        if known is None:
            known = name.lower().decode("latin-1")
            if len(_names) < _NAMES_KEPT:
                _names[name] = known
        self.headers[known] = value.decode("utf-8", "surrogateescape")

    def on_headers_complete(self) -> None:
        """Keep the status; go on after an interim one."""
        if self.ended:
            return
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004 - interim: the answer follows
            self.headers = {}
            return
        self.status, headers = status, self.headers
        if status in _BODILESS or not headers.keys().isdisjoint(_END_OF_BODY):
            self._until_closed = False
        if "content-encoding" in headers and (coding := headers["content-encoding"].lower()) != "identity":
            self._unpack = _unpacker(coding)

    def on_message_complete(self) -> None:
        """End the answer."""
        if self.ended or not self.status:
            return
        self._end()
        if not self._parser.should_keep_alive():
            self._error = DisconnectedError("the server closes the connection")

    def _end(self) -> None:
        self.ended, self._count = True, len(self._pieces)


_names: dict[bytes, str] = {}
"""Names of headers in lower case, by how they were sent."""


def _unpacker(coding: str) -> Any:
    """Return what unpacks a body (RFC 9110, 8.4.1). Raises zlib.error."""
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    if coding == "deflate":
        return zlib.decompressobj()
    raise zlib.error(f"unknown content-encoding {coding!r}")


def request_parser(protocol: object) -> tuple[Any, type[Exception]]:
    """Return a parser of requests that calls `protocol` (``on_url``, ``on_header``, ...), and what it raises otherwise."""
    from httptools import HttpParserError, HttpRequestParser

    return HttpRequestParser(protocol), HttpParserError


def head_of(url: str, headers: Mapping[str, str]) -> bytes:
    """Return the request line and the headers of a POST to a URL, without what depends on the body.

    Raises:
        ValueError: a header cannot be sent.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].encode("idna" if not parts.netloc.isascii() else "ascii").decode()
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
    given = {name.lower() for name in headers}
    ours = {"host": host, "accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": _USER_AGENT}
    lines = {**{name: value for name, value in ours.items() if name not in given}, **headers}
    for name, value in lines.items():
        if not name or any(sign in name or sign in value for sign in _UNSENT):
            raise ValueError(f"the header {name!r} has a line end in it")
    return b"".join([f"POST {target} HTTP/1.1\r\n".encode(), *(f"{name}: {value}\r\n".encode() for name, value in lines.items())])


@functools.cache
def _tls() -> ssl.SSLContext:
    """Make the context once: it loads the certificates of all authorities."""
    return ssl.create_default_context()
