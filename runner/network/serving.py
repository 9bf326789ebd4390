"""Serve HTTP/1.1 on loopback: requests are read whole, and answered in their order on each connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple, TypeAlias, cast

from runner.network.http1 import request_parser

MAX_HEAD = 64 * 2**10
MAX_BODY = 64 * 2**20
"""Bytes of a request's headers and body. Images travel in bodies."""

_AHEAD = 16
"""Requests that a connection may have sent before the first is answered. After these it is not read."""


class Incoming(NamedTuple):
    """A request. Names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """An answer; `more` are further headers."""

    status: int
    body: bytes
    content_type: str = "application/json"
    more: tuple[tuple[str, str], ...] = ()


Handle: TypeAlias = Callable[[Incoming], Awaitable[Answer]]
"""Answer a request. It raises nothing."""


class Listener:
    """A server on 127.0.0.1 in the running event loop.

    Args:
        handle: answers requests.

    Attributes:
        port: where it listens; 0 before `start`.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._open: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, port: int = 0) -> None:
        """Listen; 0: on a free port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self._handle, self._open), "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def drain(self) -> None:
        """Take no new connections, and wait until every request that has come is answered."""
        if self._server is not None:
            self._server.close()
        while busy := [one.work for one in self._open if one.work is not None]:
            await asyncio.wait(busy)

    def close(self) -> None:
        """Close every connection now. Requests that are being answered are cancelled."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._open):
            connection.abort()


class _Connection(asyncio.Protocol):
    """One connection of a client.

    Attributes:
        work: answers what has come; None while there is nothing to answer.
    """

    def __init__(self, handle: Handle, every: set[_Connection]) -> None:
        self._handle = handle
        self._every = every
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._parser, self._unreadable = request_parser(self)
        self._waiting: deque[tuple[Incoming, bool]] = deque()
        self._writable = asyncio.Event()
        self._writable.set()
        self.work: asyncio.Task[None] | None = None
        self._headless = 0
        self._in_body = False
        self._begin()

    def _begin(self) -> None:
        self._url: list[bytes] = []
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._head = self._size = 0
        self._refused: HTTPStatus | None = None

    def abort(self) -> None:
        """Close at once."""
        if self.work is not None:
            self.work.cancel()
        self._transport.abort()

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._every.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what has come. What is not HTTP is answered with 400, and ends the connection."""
        self._headless += 0 if self._in_body else len(data)
        try:
            self._parser.feed_data(data)
        except self._unreadable:
            self._refuse(self._refused or HTTPStatus.BAD_REQUEST)
            return
        if self._headless > MAX_HEAD:  # a header without an end, which the parser keeps to itself
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Forget the connection. A request that was sent on stays in flight: its answer is paid for, and kept in the cache."""
        self._every.discard(self)
        self._waiting.clear()
        self._writable.set()

    def pause_writing(self) -> None:
        """Wait before the next answer until the client has read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._writable.set()

    # --- httptools

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._begin()

    def on_url(self, url: bytes) -> None:
        """Keep a part of the target."""
        self._bound(len(url))
        self._url.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._bound(len(name) + len(value))
        self._headers[name.lower().decode("latin-1")] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Tell a client that waits before it sends its body to send it (RFC 9110, 10.1.1)."""
        self._headless, self._in_body = 0, True
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._size += len(body)
        if self._size > MAX_BODY:
            self._refused = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise ValueError(self._refused.phrase)
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Put the request in the queue."""
        self._in_body = False
        incoming = Incoming(
            self._parser.get_method().decode("ascii"),
            b"".join(self._url).decode("latin-1"),
            self._headers,
            b"".join(self._pieces),
        )
        self._waiting.append((incoming, self._parser.should_keep_alive()))
        if len(self._waiting) >= _AHEAD:
            self._transport.pause_reading()
        if self.work is None:
            self.work = asyncio.get_running_loop().create_task(self._answer())

    def _bound(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            self._refused = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError(self._refused.phrase)

    async def _answer(self) -> None:
        """Answer what is in the queue, one request after another."""
        try:
            while self._waiting:
                incoming, keep = self._waiting.popleft()
                answer = await self._handle(incoming)
                await self._writable.wait()
                if self._transport.is_closing():
                    return
                self._transport.write(_bytes_of(answer, keep=keep))
                if not keep:
                    self._transport.close()
                    return
                self._transport.resume_reading()
        finally:
            self.work = None

    def _refuse(self, status: HTTPStatus) -> None:
        self._waiting.clear()
        self._transport.write(_bytes_of(Answer(status, b""), keep=False))
        self._transport.close()


_KEEP, _CLOSE = "\r\n", "connection: close\r\n\r\n"
_PHRASES = {int(status): status.phrase for status in HTTPStatus}


def _bytes_of(answer: Answer, *, keep: bool) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in answer.more)
    head = (
        f"HTTP/1.1 {answer.status:d} {_PHRASES.get(answer.status, 'Unknown')}\r\ncontent-type: {answer.content_type}\r\n"
        f"content-length: {len(answer.body)}\r\n{more}{_KEEP if keep else _CLOSE}"
    )
    return head.encode("latin-1") + answer.body
