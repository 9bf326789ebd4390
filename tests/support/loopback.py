"""HTTP/1.1 on loopback: the one server of the tests. The others are routes of it."""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 256
"""How many routes may block at once."""


@dataclass(frozen=True)
class Request:
    """A request as it arrived. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Script:
    """What goes over the wire: bytes and pauses (s) in turn, and what becomes of the connection then."""

    steps: tuple[bytes | float, ...]
    then: Literal["keep", "close", "reset", "hang"] = "keep"


def response(body: bytes = b"", status: int = 200, *, length: int | None = None, **headers: str) -> bytes:
    """Return the bytes of a response.

    Args:
        body: its content.
        status: its code.
        length: what Content-Length claims; None: the truth.
        headers: more headers, with ``_`` for ``-`` in names that have no ``-``. The type is JSON unless they say otherwise.
    """
    named = {"Content-Type": "application/json", "Content-Length": str(len(body) if length is None else length)}
    named |= {name if "-" in name else name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\n{head}\r\n".encode("latin-1") + body


TURNS = 10
"""Turns of the event loop within which a connection that was accepted has its handler at work."""


class Loopback:
    """The server, as a context manager: an event loop in a thread. A subclass says in `route` what it answers.

    Attributes:
        port: where it listens on 127.0.0.1.
        address: its URL, without a path.
        connections: those that are open.
        errors: what `route` has raised. The end of the `with` raises the first.
    """

    def __init__(self) -> None:
        self.connections: set[asyncio.StreamWriter] = set()
        self.errors: list[Exception] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loopback", daemon=True)
        self._threads = ThreadPoolExecutor(THREADS)

    async def route(self, request: Request) -> Script:
        """Return what is sent back. Runs in the server's event loop: what may block belongs into `in_thread`."""
        raise NotImplementedError

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that may block."""
        return await self._loop.run_in_executor(self._threads, function, *arguments)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._threads.shutdown()
        if self.errors and kind is None:
            raise AssertionError("the server itself failed") from self.errors[0]

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _close(self) -> None:
        # A connection that is accepted needs its server open to get a transport, and its handler a turn to close it.
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        for _ in range(TURNS):
            await asyncio.sleep(0)
        self._server.close()
        handlers = asyncio.all_tasks() - {asyncio.current_task()}
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            # a cancelled handler ends like the others: asyncio's streams would report it
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while (request := await _read(reader)) and await self.exchange(request, reader, writer):
                    pass
        except Exception as error:  # noqa: BLE001 - boundary: the test is told
            self.errors.append(error)
        finally:
            self.connections.discard(writer)
            writer.transport.abort()

    async def exchange(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. Returns whether the connection stays open."""
        script = await self.route(request)
        for step in script.steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                writer.write(step)
                await writer.drain()
        match script.then:
            case "reset":
                connection: socket.socket = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case "close":
                writer.close()
                await writer.wait_closed()
            case "hang":
                await reader.read(1)  # until the client gives up
        return script.then == "keep" and request.headers.get("connection") != "close"


async def _read(reader: asyncio.StreamReader) -> Request:
    """Read one request, whose body has a known length."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))
