"""A server that counts: chat completions in OpenAI's wire format, each answered after a short random time.

It keeps how often each question was asked. An answer follows from its question alone, so that a record can be checked without
knowing what the server did.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from runner.stats.seeds import seed_of
from tests.support.loopback import Loopback, Request, Script, response

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


REPEATS = {seed_of(0, repeat): repeat for repeat in range(16)}
"""Repeats by the seed that is sent, where ``sampling.seed=0``."""


class CountingServer(Loopback):
    """The server, as a context manager.

    Args:
        seed: chooses the latencies.
        latency_s: the shortest and the longest of them.

    Attributes:
        asked: how often each question was asked since the last `begin`.
        broken: questions that are refused, so that their rows fail for good.
        reached: whether as many requests have arrived as the last `begin` named.
    """

    def __init__(self, *, seed: int = 0, latency_s: tuple[float, float] = (0.005, 0.05)) -> None:
        super().__init__()
        self.asked: Counter[Asked] = Counter()
        self.broken: set[str] = set()
        self.reached = False
        self._at: int | None = None
        self._call: Callable[[], None] = _nothing
        self._random = random.Random(seed)
        self._latency_s = latency_s

    @property
    def url(self) -> str:
        """The ``api_base`` for clients."""
        return f"{self.address}/v1"

    def begin(self, at: int | None = None, call: Callable[[], None] = _nothing) -> None:
        """Count from zero; when request number `at` arrives, `call` in the server's thread."""
        self.asked, self.reached = Counter(), False
        self._at, self._call = at, call

    async def route(self, request: Request) -> Script:
        """Count the request, and answer it after a while."""
        if request.method == "GET":  # which models it serves: it does not say
            return Script((response(b"", 404),))
        body = json.loads(request.body)
        said = str(body["messages"][-1]["content"])
        seed = body.get("seed") or 0
        self.asked[said, REPEATS.get(seed, seed)] += 1
        code, reply = (400, _REFUSAL) if said in self.broken else (200, _completion(body, answer(said)))
        if self.asked.total() == self._at:
            self._call()
            self.reached = True
        return Script((self._random.uniform(*self._latency_s), response(json.dumps(reply).encode(), code)))


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
