"""Send POST requests over HTTP/1.1 and keep their connections open. The only module that imports httptools.

For what nearly all requests to a model are: one address, no proxy, a body at once. A call costs less than half of the CPU that it
costs with a general client (tests/bench/RESULTS.md), which does the rest (`runner.network.general`): proxies, redirects, user
names in addresses.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import zlib
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_TIMEOUT_S = 30.0
IDLE_S = 15.0
"""A connection that has been idle for longer is not used again: the server may be about to close it."""

_END_OF_BODY = frozenset({b"content-length", b"transfer-encoding"})
_UNSENT = "\r\n\0"
_USER_AGENT = "ostinato"
"""Some providers' firewalls refuse requests that do not say what sends them."""
_BODILESS = (204, 304)


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

    async def begin(self, head: bytes, body: bytes) -> Connection:
        """Send a request and return its connection, which `end` takes back.

        Args:
            head: the request line and the headers, as `head_of` makes them.
            body: the body.

        Raises:
            TimeoutError: there is no connection in time.
            OSError: there is no connection.
        """
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now - connection.idle_since < IDLE_S:
                break
            connection.abort()
        else:
            connection = await self._connect()
        connection.send(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        return connection

    def end(self, connection: Connection) -> None:
        """Keep a connection for the next request if its answer was read to the end, and the server keeps it; else close it."""
        if connection.ended and connection.usable:
            connection.silence(0.0)
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().abort()

    async def _connect(self) -> Connection:
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
        idle_since: when it was last given back, by the clock of the event loop.
    """

    def __init__(self) -> None:
        from httptools import HttpParserError, HttpResponseParser

        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._unreadable = HttpParserError
        self._transport: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._wants_all = True
        self._error: Exception | None = None
        self._silence_s = 0.0
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        self._reset()
        self.ended = True

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._unpack: Any = None
        self._until_closed = True
        self.ended = False

    @property
    def usable(self) -> bool:
        """Return whether another request may be sent."""
        return self._error is None and not self._transport.is_closing()

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._reset()
        self._transport.write(request)

    async def whole(self) -> None:
        """Wait for the end of the answer. Raises `DisconnectedError` and `NotHTTPError`."""
        self._wants_all = True
        while not self.ended:
            await self._wait()

    async def head(self) -> None:
        """Wait for the status and the headers. Raises `DisconnectedError`, `NotHTTPError` and `SilentError`."""
        self._wants_all = False
        while not self.status:
            await self._wait()

    async def more(self) -> bytes:
        """Wait for a part of the body, and return it; empty at its end. Raises as `head`."""
        self._wants_all = False
        while not self._pieces and not self.ended:
            await self._wait()
        return self.read()

    def read(self) -> bytes:
        """Return what has come of the body, once."""
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def silence(self, seconds: float) -> None:
        """From now on, fail with `SilentError` when nothing has come for so many seconds; 0: never."""
        self._silence_s, self._heard = seconds, self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._listen) if seconds else None

    def abort(self) -> None:
        """Close the connection at once."""
        self.silence(0.0)
        self._transport.abort()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _listen(self) -> None:
        """Look whether the server has been silent for too long; the timer runs once for each such time, not for each piece."""
        self._timer = None
        if not self._silence_s or self.ended:
            return
        left = self._heard + self._silence_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._listen)
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
            self.ended = True
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
        lower = name.lower()
        if lower in _END_OF_BODY:
            self._until_closed = False
        self.headers[lower.decode("latin-1")] = value.decode("utf-8", "surrogateescape")

    def on_headers_complete(self) -> None:
        """Keep the status; go on after an interim one."""
        if self.ended:
            return
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004 - interim: the answer follows
            self.headers = {}
            return
        self.status = status
        if status in _BODILESS:
            self._until_closed = False
        coding = self.headers.get("content-encoding", "identity").lower()
        if coding != "identity":
            self._unpack = _unpacker(coding)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if self.ended:
            return
        self._pieces.append(self._unpack.decompress(body) if self._unpack is not None else body)

    def on_message_complete(self) -> None:
        """End the answer."""
        if self.ended or not self.status:
            return
        if self._unpack is not None:
            self._pieces.append(self._unpack.flush())
        self.ended = True
        if not self._parser.should_keep_alive():
            self._error = DisconnectedError("the server closes the connection")


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
