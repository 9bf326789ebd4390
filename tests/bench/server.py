"""A server that speaks OpenAI's wire format as fast as one core of Python can, in a process of its own: the floor to measure on.

    with Server() as server:                    # or Server(latency_ms=200)
        ...LM("openai/bench", api_base=server.url, api_key="none")...
        assert server.count() == 1

By hand: ``python tests/bench/server.py --port 8000 --latency-ms 20``. It knows POST /v1/chat/completions and /v1/completions,
GET /v1/models, and GET /count (requests answered, connections accepted, its own CPU seconds). The answer to a prompt is always
the same. It knows nothing of errors and limits: `tests.support.server` does.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import deque
from typing import Any, NamedTuple, Self

import msgspec

MAX_HEAD = 64 * 1024
JUDGE = "judge"
"""The model that answers with a verdict: the label ``right``."""


class Server:
    """The server as a context manager: a child process that ends with it, and with its parent.

    Args:
        latency_ms: milliseconds that every answer is held back.

    Attributes:
        url: its address, with the version: ``http://127.0.0.1:PORT/v1``.
    """

    def __init__(self, *, latency_ms: float = 0.0) -> None:
        self._latency_ms = latency_ms
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, __file__, "--child", "--latency-ms", str(self._latency_ms)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()
        if not self.url:
            self.__exit__()
            raise RuntimeError("the bench server did not start; what it said stands above")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def facts(self) -> dict[str, Any]:
        """`requests` answered, `connections` accepted, `cpu_s` used, since it started."""
        with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/count") as response:
            return json.loads(response.read())

    def count(self) -> int:
        """Completions answered since it started."""
        return int(self.facts()["requests"])


class _Message(msgspec.Struct):
    content: Any = None


class _Body(msgspec.Struct):
    """What an answer depends on; the rest of the body is skipped, not decoded."""

    model: str
    messages: list[_Message] = []
    prompt: Any = None
    n: int | None = None
    stream: bool | None = False


class _Head(NamedTuple):
    method: bytes
    path: bytes
    length: int
    close: bool


class Counts:
    """What the server has done."""

    def __init__(self) -> None:
        self.requests = 0
        self.connections = 0

    def encoded(self) -> bytes:
        facts = {"requests": self.requests, "connections": self.connections, "cpu_s": round(time.process_time(), 3)}
        return json.dumps(facts).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection: whole requests are cut from what has come, and answered in order."""

    def __init__(self, counts: Counts, latency_s: float) -> None:
        self._counts = counts
        self._latency_s = latency_s
        self._loop = asyncio.get_running_loop()
        self._came = bytearray()
        self._head: _Head | None = None
        self._held: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._counts.connections += 1

    def data_received(self, data: bytes) -> None:
        self._came += data
        answers = []
        closes = False
        while not closes and (whole := self._next()) is not None:
            head, body = whole
            answers.append(_respond(head, body, self._counts))
            closes = head.close
        if answers:
            self._send(b"".join(answers), closes=closes)

    def _next(self) -> tuple[_Head, bytes] | None:
        """The next whole request, or None while it has not come whole."""
        if self._head is None:
            end = self._came.find(b"\r\n\r\n")
            if end < 0:
                if len(self._came) > MAX_HEAD:
                    self._transport.abort()
                return None
            self._head = _head_of(bytes(self._came[:end]))
            del self._came[: end + 4]
        head = self._head
        if len(self._came) < head.length:
            return None
        body = bytes(self._came[: head.length])
        del self._came[: head.length]
        self._head = None
        return head, body

    def _send(self, data: bytes, *, closes: bool) -> None:
        if self._latency_s:
            self._held.append(data)
            self._loop.call_later(self._latency_s, self._release, closes)
        else:
            self._write(data, closes)

    def _release(self, closes: bool) -> None:
        self._write(self._held.popleft(), closes)

    def _write(self, data: bytes, closes: bool) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
            if closes:
                self._transport.close()


def _head_of(raw: bytes) -> _Head:
    method, path, _ = raw.split(b" ", 2)
    lower = raw.lower()
    at = lower.find(b"\r\ncontent-length:")
    length = int(lower[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    chunked = b"\r\ntransfer-encoding:" in lower  # the length is not known: refused, and nothing more is read
    return _Head(method, b"" if chunked else path.partition(b"?")[0], length, chunked or b"\r\nconnection: close" in lower)


_decoder = msgspec.json.Decoder(_Body)


def _respond(head: _Head, body: bytes, counts: Counts) -> bytes:
    if head.method == b"GET" and head.path == b"/count":
        return _ok(counts.encoded())
    if head.method == b"GET" and head.path == b"/v1/models":
        return _ok(b'{"object":"list","data":[{"id":"bench","object":"model","created":0,"owned_by":"bench"}]}')
    if head.method != b"POST" or head.path not in {b"/v1/chat/completions", b"/v1/completions"}:
        return _refused(411 if not head.path else 404, "the bench server does not know this")
    try:
        asked = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        return _refused(400, str(error))
    is_long = asked.model.startswith(_LONG)
    if asked.stream and not is_long:
        return _refused(400, "the bench server streams the models events-N only")
    counts.requests += 1
    answer = _chat if head.path == b"/v1/chat/completions" else _text
    return _long(asked.model, bool(asked.stream)) if is_long else _ok(answer(asked))


_CHAT = (
    '{"id":"chatcmpl-%08x","object":"chat.completion","created":1700000000,"model":%s,"system_fingerprint":"fp_bench",'
    '"choices":[%s],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}'
)
_VERDICT_CHOICE = (
    '{"index":%d,"message":{"role":"assistant","content":"{\\"reason\\": \\"It says %d.\\", \\"label\\": \\"right\\"}",'
    '"refusal":null},"logprobs":null,"finish_reason":"stop"}'
)
_CHAT_CHOICE = (
    '{"index":%d,"message":{"role":"assistant","content":"The answer is %d.","refusal":null},'
    '"logprobs":null,"finish_reason":"stop"}'
)
_TEXT = (
    '{"id":"cmpl-%08x","object":"text_completion","created":1700000000,"model":%s,"system_fingerprint":"fp_bench",'
    '"choices":[%s],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}'
)
_TEXT_CHOICE = '{"index":%d,"text":" The answer is %d.","logprobs":null,"finish_reason":"stop"}'
_TOKENS = 5


_LONG = "events-"
"""The model ``events-N`` answers with 100 tokens, in N events and one with the usage if it is asked to stream."""
_WORDS = [f"{word} " for word in ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "again"] * 10]


@functools.cache  # what the server spends on making it would be waited for, and waiting clients gather less
def _long(model: str, stream: bool) -> bytes:
    usage = {"prompt_tokens": 8, "completion_tokens": len(_WORDS), "total_tokens": 8 + len(_WORDS)}
    head = {"id": "chatcmpl-bench", "created": 1700000000, "model": model, "system_fingerprint": "fp_bench"}
    if not stream:
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(_WORDS), "refusal": None}, "logprobs": None}
        body = {**head, "object": "chat.completion", "choices": [{**choice, "finish_reason": "stop"}], "usage": usage}
        return _ok(json.dumps(body).encode())
    count = int(model.removeprefix(_LONG))
    parts = ["".join(_WORDS[len(_WORDS) * at // count : len(_WORDS) * (at + 1) // count]) for at in range(count)]
    pieces: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    pieces += [({"content": part}, None) for part in parts]
    pieces.append(({}, "stop"))
    chunk = {**head, "object": "chat.completion.chunk", "usage": None}
    events = [
        {**chunk, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}
        for delta, reason in pieces
    ]
    sent = [b"data: %b\n\n" % json.dumps(one).encode() for one in [*events, {**chunk, "choices": [], "usage": usage}]]
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in [*sent, b"data: [DONE]\n\n"])
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunked


def _chat(asked: _Body) -> bytes:
    said = asked.messages[-1].content if asked.messages else ""
    return _completion(_CHAT, _VERDICT_CHOICE if asked.model == JUDGE else _CHAT_CHOICE, asked, said)


def _text(asked: _Body) -> bytes:
    return _completion(_TEXT, _TEXT_CHOICE, asked, asked.prompt)


def _completion(form: str, choice: str, asked: _Body, said: Any) -> bytes:
    text = said if isinstance(said, str) else json.dumps(said)
    digest = zlib.crc32(text.encode())
    n = asked.n or 1
    choices = ",".join([choice % (index, digest % 1000) for index in range(n)])
    sent, made = len(text) // 4 + 1, n * _TOKENS
    return (form % (digest, json.dumps(asked.model), choices, sent, made, sent + made)).encode()


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _refused(status: int, message: str) -> bytes:
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}).encode()
    return b"HTTP/1.1 %d Refused\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def serve(port: int, latency_s: float, *, child: bool) -> None:
    """Answer until SIGTERM or SIGINT (or, as a `child`, until stdin ends: its parent has gone)."""
    counts = Counts()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(counts, latency_s), "127.0.0.1", port, backlog=4096)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if child:
        loop.add_reader(0, lambda: os.read(0, 1024) or ended.set())
    sys.stdout.write(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    gc.freeze()
    await ended.wait()
    listening.close()


def main() -> None:
    """Serve, by hand or as the child of `Server`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0: any that is free (default)")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="milliseconds that every answer is held back")
    parser.add_argument("--child", action="store_true", help="end when stdin does")
    args = parser.parse_args()
    asyncio.run(serve(args.port, args.latency_ms / 1000, child=args.child))


if __name__ == "__main__":
    main()
