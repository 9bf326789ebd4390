"""A fast server that counts: chat completions in OpenAI's wire format, each answered after a short random time.

It runs in a thread of its own and keeps, by question, how often it was asked. An answer follows from its question alone, so that
a record can be checked without knowing what the server did.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

Asked = tuple[str, int]
"""A question and its repeat, as the seed that was sent says it (0 without one)."""


def question(number: int) -> str:
    """The question about a number."""
    return f"What is {number} times 7?"


def answer(asked: str) -> str:
    """The right answer to a `question`."""
    return str(int(asked.split()[2]) * 7)


def _nothing() -> None:
    pass


class CountingServer:
    """The server, as a context manager.

    Args:
        seed: chooses the latencies.
        latency_s: the shortest and the longest of them.

    Attributes:
        asked: how often each question was asked since the last `begin`.
        broken: questions that are refused, for what makes a row fail for good.
        reached: whether so many requests have come as the last `begin` said.
    """

    def __init__(self, *, seed: int = 0, latency_s: tuple[float, float] = (0.005, 0.05)) -> None:
        self.asked: Counter[Asked] = Counter()
        self.broken: set[str] = set()
        self.reached = False
        self._at: int | None = None
        self._call: Callable[[], None] = _nothing
        self.connections: set[asyncio.Transport] = set()
        self._random = random.Random(seed)
        self._latency_s = latency_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="counting server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def begin(self, at: int | None = None, call: Callable[[], None] = _nothing) -> None:
        """Count from zero; as the request number `at` arrives, `call` in the server's thread."""
        self.asked, self.reached = Counter(), False
        self._at, self._call = at, call

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=256)

    async def _close(self) -> None:
        self._server.close()
        for connection in list(self.connections):
            connection.abort()

    def _answer(self, connection: _Connection, body: dict[str, Any]) -> None:
        said = str(body["messages"][-1]["content"])
        self.asked[said, body.get("seed") or 0] += 1
        code, reply = (400, _REFUSAL) if said in self.broken else (200, _completion(body, answer(said)))
        self._loop.call_later(self._random.uniform(*self._latency_s), connection.send, code, json.dumps(reply).encode())
        if self.asked.total() == self._at:
            self._call()
            self.reached = True


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as clients of an API use: a head, a body of a known length."""

    def __init__(self, owner: CountingServer) -> None:
        self._owner = owner
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._owner.connections.add(self._transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._owner.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            lines = self._data[:end].decode("latin-1").lower().split("\r\n")
            length = next((int(line.split(":", 1)[1]) for line in lines if line.startswith("content-length:")), 0)
            body, rest = self._data[end + 4 : end + 4 + length], self._data[end + 4 + length :]
            if len(body) < length:
                return
            self._data = rest
            self._owner._answer(self, json.loads(body))

    def send(self, code: int, body: bytes) -> None:
        head = f"HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        if not self._transport.is_closing():
            self._transport.write(head.encode() + body)


_REFUSAL = {"error": {"message": "This model's maximum context length is 10 tokens", "code": "context_length_exceeded"}}


def _completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-harness",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
