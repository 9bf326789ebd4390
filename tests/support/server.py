"""A real HTTP server on loopback that speaks OpenAI's protocol, behaves as a test scripts it, and remembers what it was asked.

    with Server() as server:                                    # answers "ok" to everything
        server.script(Status(429, retry_after=0), Reply("42"))  # the next two requests; then "ok" again
        ...LM("openai/any", api_base=server.url, api_key="none")...
        assert [call.path for call in server.calls] == ["/v1/chat/completions"] * 2

It knows /v1/chat/completions, /v1/completions, /v1/responses and /v1/models. A behaviour is a `Reply`, a `Status`, a `Raw`,
a `Reset` or a `Hang`, or a function of the `Call` that returns one.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from tests.support.clock import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Call:
    """One request as it arrived. Header names are in lower case; `body` is the parsed JSON (None without one)."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any = None

    @property
    def question(self) -> str:
        """The last thing that was said, whatever the wire format."""
        body = self.body or {}
        if "prompt" in body:
            return str(body["prompt"])
        said = body.get("messages") or body.get("input") or [{"content": ""}]
        return said if isinstance(said, str) else str(said[-1].get("content"))


@dataclass(frozen=True)
class Reply:
    """An answer. `text` may be a function of the call; `n` of the request is honoured. What is None is left out."""

    text: str | Callable[[Call], str] | None = "ok"
    finish_reason: str = "stop"
    usage: dict[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: dict[str, Any] | None = None
    reasoning: str | None = None
    model: str | None = None
    fingerprint: str | None = "fp_test"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


@dataclass(frozen=True)
class Status:
    """A refusal with OpenAI's error body, or with `body` as it stands."""

    code: int
    message: str = "scripted"
    type: str | None = None
    error_code: str | None = None
    retry_after: float | str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Raw:
    """Any bytes, such as a body that is no JSON, or none."""

    body: bytes
    code: int = 200
    content_type: str = "application/json"


@dataclass(frozen=True)
class Reset:
    """The connection is reset; `after` bytes of a good answer have been sent (0: nothing)."""

    after: int = 0


@dataclass(frozen=True)
class Hang:
    """Nothing more comes after `after` bytes of a good answer, until the client goes away or the server stops."""

    after: int = 0


Behaviour: TypeAlias = "Reply | Status | Raw | Reset | Hang | Callable[[Call], Behaviour]"


class Server:
    """The server, as a context manager. Thread-safe; many may run at once.

    Args:
        otherwise: what it does when nothing is scripted.
        api_key: when given, a request without ``Authorization: Bearer <api_key>`` gets 401.
        models: what /v1/models lists.
    """

    def __init__(
        self, otherwise: Behaviour | None = None, *, api_key: str | None = None, models: tuple[str, ...] = ("test",)
    ) -> None:
        self.otherwise = otherwise or Reply()
        self.api_key = api_key
        self.models = models
        self.calls: list[Call] = []
        self.errors: list[BaseException] = []
        self.most_at_once = 0
        self._at_once = 0
        self._script: deque[Behaviour] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self._http = _HTTP(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="test server", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()  # waits for the handlers, whose connections it has cut
        self._thread.join()
        if self.errors and kind is None:
            raise AssertionError("a scripted behaviour failed") from self.errors[0]

    @property
    def url(self) -> str:
        """The ``api_base`` for clients, ending in /v1."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def count(self) -> int:
        """How many requests for an answer have arrived (lists of models are not counted)."""
        return len(self.calls)

    @property
    def last(self) -> Call:
        """The latest request for an answer."""
        return self.calls[-1]

    def script(self, *behaviours: Behaviour) -> None:
        """What to do with the next requests, in this order."""
        with self._lock:
            self._script.extend(behaviours)

    def reset(self) -> None:
        """Forget the script and the calls."""
        with self._lock:
            self._script.clear()
            self.calls.clear()
            self.most_at_once = 0

    def wait_for(self, count: int) -> None:
        """Return once `count` requests have arrived."""
        wait_until(lambda: self.count >= count, f"{count} requests")

    def _behaviour(self, call: Call) -> Behaviour:
        if self.api_key is not None and call.headers.get("authorization") != f"Bearer {self.api_key}":
            return Status(401, "Incorrect API key provided", error_code="invalid_api_key")
        with self._lock:
            found = self._script.popleft() if self._script else self.otherwise
        while not isinstance(found, Reply | Status | Raw | Reset | Hang):
            found = found(call)
        return found


class _HTTP(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = False

    def __init__(self, owner: Server) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):  # a client that has gone is what some tests are about
            self.owner.errors.append(error)

    def server_close(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has closed in the meantime
                continue
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one write, or Nagle's algorithm makes each take 40 ms
    server: _HTTP

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            listed = [{"id": name, "object": "model"} for name in self.server.owner.models]
            self._send(200, json.dumps({"object": "list", "data": listed}).encode())
        else:
            self._refuse(Status(404, f"no such path: {self.path}"))

    def do_POST(self) -> None:
        owner = self.server.owner
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call("POST", self.path, headers, json.loads(body) if body else None)
        with owner._lock:
            owner.calls.append(call)
            owner._at_once += 1
            owner.most_at_once = max(owner.most_at_once, owner._at_once)
        try:
            self._do(owner._behaviour(call), call)
        finally:
            with owner._lock:
                owner._at_once -= 1

    def _do(self, behaviour: Behaviour, call: Call) -> None:
        match behaviour:
            case Reply():
                answer = _answer(behaviour, call)
                if answer is None:
                    self._refuse(Status(404, f"no such path: {call.path}"))
                    return
                if behaviour.delay_s:
                    self.server.owner._closing.wait(behaviour.delay_s)
                self._send(200, answer, behaviour.headers)
            case Status():
                self._refuse(behaviour)
            case Raw():
                self._send(behaviour.code, behaviour.body, content_type=behaviour.content_type)
            case Reset():
                self._begin(behaviour.after, call)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            case Hang():
                self._begin(behaviour.after, call)
                self.connection.settimeout(None)
                self.connection.recv(1)  # ends when the client or the server closes the connection
                self.close_connection = True

    def _begin(self, count: int, call: Call) -> None:
        if not count:
            return
        body = _answer(Reply(), call) or b""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write((head.encode() + body)[: len(head) + count])
        self.wfile.flush()

    def _refuse(self, refusal: Status) -> None:
        headers = dict(refusal.headers)
        if refusal.retry_after is not None:
            headers["Retry-After"] = str(refusal.retry_after)
        error = {"message": refusal.message, "type": refusal.type, "param": None, "code": refusal.error_code}
        self._send(refusal.code, json.dumps({"error": error}).encode() if refusal.body is None else refusal.body, headers)

    def _send(
        self, code: int, body: bytes, headers: dict[str, str] | None = None, content_type: str = "application/json"
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _answer(reply: Reply, call: Call) -> bytes | None:
    """The body of an answer in the wire format of the path that was asked; None when there is no such path."""
    made = {"/v1/chat/completions": _chat, "/v1/completions": _completion, "/v1/responses": _responses}
    build = made.get(call.path.partition("?")[0])
    if build is None:
        return None
    text = reply.text(call) if callable(reply.text) else reply.text
    body = build(reply, call, text)
    body |= {"created": 1_700_000_000, "model": reply.model or call.body.get("model")}
    if reply.usage is not None:
        body["usage"] = _renamed(reply.usage) if build is _responses else reply.usage
    if reply.fingerprint is not None:
        body["system_fingerprint"] = reply.fingerprint
    return json.dumps(body).encode()


def _chat(reply: Reply, call: Call, text: str | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if reply.tool_calls:
        message["tool_calls"] = reply.tool_calls
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    choice = {"message": message, "finish_reason": reply.finish_reason, "logprobs": reply.logprobs}
    choices = [{"index": index, **choice} for index in range(call.body.get("n") or 1)]
    return {"id": "chatcmpl-test", "object": "chat.completion", "choices": choices}


def _completion(reply: Reply, call: Call, text: str | None) -> dict[str, Any]:
    choice = {"text": text, "finish_reason": reply.finish_reason, "logprobs": reply.logprobs}
    choices = [{"index": index, **choice} for index in range(call.body.get("n") or 1)]
    return {"id": "cmpl-test", "object": "text_completion", "choices": choices}


def _responses(reply: Reply, call: Call, text: str | None) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    if reply.reasoning:
        summary = [{"type": "summary_text", "text": reply.reasoning}]
        output.append({"type": "reasoning", "id": "rs_test", "summary": summary})
    if text is not None:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        output.append({"type": "message", "id": "msg_test", "status": "completed", "role": "assistant", "content": content})
    for call_ in reply.tool_calls or []:
        function = call_["function"]
        output.append({"type": "function_call", "id": "fc_test", "call_id": call_["id"], "status": "completed", **function})
    cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reply.finish_reason)
    return {
        "id": "resp_test",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": cut} if cut else None,
        "error": None,
        "instructions": None,
        "metadata": {},
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }


def _renamed(usage: dict[str, Any]) -> dict[str, Any]:
    """Usage in the words of the responses API."""
    return {name.replace("prompt", "input").replace("completion", "output"): count for name, count in usage.items()}
