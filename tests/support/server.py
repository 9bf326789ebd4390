"""A real HTTP server on loopback that speaks OpenAI's protocol, behaves as a test scripts it, and remembers what it was asked.

    with Server() as server:                                    # answers "ok" to everything
        server.script(Status(429, retry_after=0), Reply("42"))  # the next two requests; then "ok" again
        ...LM("openai/any", api_base=server.url, api_key="none")...
        assert [call.path for call in server.calls] == ["/v1/chat/completions"] * 2

It knows /v1/chat/completions, /v1/completions, /v1/responses and /v1/models. A behaviour is a `Reply`, a `Status`, a `Raw`,
a `Stream`, a `Reset` or a `Hang`, or a function of the `Call` that returns one. A `Reply` is streamed if the request asks for it.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tests.support.clock import wait_until
from tests.support.loopback import Loopback, Request, Script, response
from tests.support.streams import DONE, chunked, events_of, of_responses

if TYPE_CHECKING:
    import asyncio
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
class Stream:
    """An event stream: the bytes of its body and pauses (s) in turn, and what becomes of the connection then.

    With ``close`` and ``reset`` the body has no end; with ``keep`` it has one.
    """

    steps: tuple[bytes | float, ...]
    then: Literal["keep", "close", "reset", "hang"] = "keep"
    content_type: str = "text/event-stream"


@dataclass(frozen=True)
class Reset:
    """The connection is reset (or closed `politely`); `after` bytes of a good answer have been sent (0: nothing)."""

    after: int = 0
    politely: bool = False


@dataclass(frozen=True)
class Hang:
    """Nothing more comes after `after` bytes of a good answer, until the client goes away or the server stops."""

    after: int = 0


Behaviour: TypeAlias = "Reply | Status | Raw | Stream | Reset | Hang | Callable[[Call], Behaviour]"


class Server(Loopback):
    """The server, as a context manager. Thread-safe; many may run at once.

    Args:
        otherwise: what it does when nothing is scripted.
        api_key: when given, a request without ``Authorization: Bearer <api_key>`` gets 401.
        models: what /v1/models lists.

    Attributes:
        told: what other GET requests are answered with, by path; also /v1/models. JSON data, or a behaviour.
    """

    def __init__(
        self, otherwise: Behaviour | None = None, *, api_key: str | None = None, models: tuple[str, ...] = ("test",)
    ) -> None:
        super().__init__()
        self.otherwise = otherwise or Reply()
        self.api_key = api_key
        self.models = models
        self.told: dict[str, Any] = {}
        self.calls: list[Call] = []
        self.most_at_once = 0
        self._at_once = 0
        self._script: deque[Behaviour] = deque()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The ``api_base`` for clients, ending in /v1."""
        return f"{self.address}/v1"

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
        while not isinstance(found, Reply | Status | Raw | Stream | Reset | Hang):
            found = found(call)
        return found

    async def exchange(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Count what is answered at the same time, apart from lists of models."""
        if request.method == "GET":
            return await super().exchange(request, reader, writer)
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await super().exchange(request, reader, writer)
        finally:
            with self._lock:
                self._at_once -= 1

    async def route(self, request: Request) -> Script:
        """Do as the script says."""
        if request.method == "GET" and request.path in self.told:
            told = self.told[request.path]
            if isinstance(told, Status | Raw | Reset | Hang):
                return _script(told, Call(request.method, request.path, request.headers))
            return Script((response(json.dumps(told).encode()),))
        if request.method == "GET" and request.path == "/v1/models":
            listed = [{"id": name, "object": "model"} for name in self.models]
            return Script((response(json.dumps({"object": "list", "data": listed}).encode()),))
        call = Call(request.method, request.path, request.headers, json.loads(request.body) if request.body else None)
        if request.method != "POST":
            return _refusal(Status(404, f"no such path: {call.path}"))
        with self._lock:
            self.calls.append(call)
        return await self.in_thread(lambda: _script(self._behaviour(call), call))


def _script(behaviour: Behaviour, call: Call) -> Script:
    match behaviour:
        case Reply():
            return _reply(behaviour, call)
        case Status():
            return _refusal(behaviour)
        case Raw():
            return Script((response(behaviour.body, behaviour.code, Content_Type=behaviour.content_type),))
        case Stream():
            return Script(chunked(behaviour.steps, behaviour.then == "keep", Content_Type=behaviour.content_type), behaviour.then)
        case Reset():
            return Script(_beginning(behaviour.after, call), "close" if behaviour.politely else "reset")
        case Hang():
            return Script(_beginning(behaviour.after, call), "hang")


def _reply(reply: Reply, call: Call) -> Script:
    answer = _answer(reply, call)
    if answer is None:
        return _refusal(Status(404, f"no such path: {call.path}"))
    if not call.body.get("stream"):
        return Script((float(reply.delay_s), response(answer, **reply.headers)))
    body = json.loads(answer)
    events = of_responses(body) if "output" in body else [*events_of(body), DONE]
    return Script((float(reply.delay_s), *chunked(tuple(events), **reply.headers)))


def _beginning(count: int, call: Call) -> tuple[bytes, ...]:
    """Return the head of a good answer, and `count` bytes of its body; nothing when it is 0."""
    body = _answer(Reply(), call) or b""
    good = response(body)
    return (good[: len(good) - len(body) + count],) if count else ()


def _refusal(refusal: Status) -> Script:
    headers = dict(refusal.headers)
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    error = {"message": refusal.message, "type": refusal.type, "param": None, "code": refusal.error_code}
    body = json.dumps({"error": error}).encode() if refusal.body is None else refusal.body
    return Script((response(body, refusal.code, **headers),))


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


def unlike_any_other():
    """A behaviour that never answers twice in the same way."""
    count = iter(range(1000))
    return lambda call: Reply(f"about {call.question[8:-1]}" if next(count) % 3 else f"answer {next(count)}: ☃ \U0001f600")
