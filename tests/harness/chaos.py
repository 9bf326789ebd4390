"""A server that fails as servers do, by a dice that can be thrown again, and a run that must come through it whole.

    python -m tests.harness.chaos --rows 5000 --rate 0.3 --seed 1

A fault is chosen by (seed, question, attempt): the same numbers meet the same faults. What must hold: every row ends ok with the
answer to its own question, no request was made but one a row and one a fault, and a second run is answered by the cache.
"""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import gzip
import hashlib
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.config.compose import compose
from runner.experiment.experiment import Experiment
from runner.experiment.prepared import prepare
from runner.experiment.run import run_to_end
from runner.network.retry import MALFORMED_ATTEMPTS, TIMEOUT_ATTEMPTS, RetryPolicy
from runner.transport.litellm import _litellm
from tests.support.loopback import Loopback, Request, Script, response

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.errors import LMError
    from runner.experiment.run import RunResult


def _refusal(status: int, **headers: str) -> Script:
    return Script((response(b'{"error": {"message": "chaos"}}', status, **headers),))


def _date() -> str:
    return email.utils.formatdate(time.time(), usegmt=True)


UNSEEN = 0.05
"""The share of faults after which one attempt more may fail before it reaches the server."""

BROKEN: dict[str, Callable[[bytes], Script]] = {
    "500": lambda _: _refusal(500),
    "502 of a proxy": lambda _: Script((response(b"<html>Bad Gateway</html>", 502, Content_Type="text/html"),), "close"),
    "503": lambda _: _refusal(503),
    "503, Retry-After 0": lambda _: _refusal(503, Retry_After="0"),
    "503, Retry-After 0.05": lambda _: _refusal(503, Retry_After="0.05"),
    "429": lambda _: _refusal(429),
    "429, Retry-After 0": lambda _: _refusal(429, Retry_After="0"),
    "429, Retry-After a date": lambda _: _refusal(429, Retry_After=_date()),
    "429, retry-after-ms": lambda _: _refusal(429, retry_after_ms="20"),
    "reset": lambda _: Script((), "reset"),
    "reset in the head": lambda good: Script((good[:20], 0.005), "reset"),
    "reset in the body": lambda good: Script((good[:-9], 0.005), "reset"),
    "closed in the body": lambda good: Script((good[:-9],), "close"),
    "length too long": lambda good: Script((response(_body(good), length=len(_body(good)) + 9),), "close"),
    "hang": lambda _: Script((), "hang"),
    "hang in the body": lambda good: Script((good[:-9],), "hang"),
}
"""What a client sees as a refusal, a broken connection or silence."""

MALFORMED: dict[str, Callable[[bytes], Script]] = {
    "no JSON": lambda _: Script((response(b"<html>all is well</html>", Content_Type="text/html"),)),
    "cut JSON": lambda good: Script((response(_body(good)[:-9]),)),
    "empty body": lambda _: Script((response(b""),)),
    "wrong shape": lambda _: Script((response(b'{"choices": {"text": 1}}'),)),
    "no choices": lambda _: Script((response(b'{"choices": []}'),)),
    "an error with 200": lambda _: Script((response(b'{"error": {"message": "overloaded"}}'),)),
    "a list": lambda _: Script((response(b"[1, 2, 3]"),)),
    "length too short": lambda good: Script((response(_body(good), length=len(_body(good)) - 9),)),
}
"""Answers (200) that are none."""

HANGS = ("hang", "hang in the body")
"""Faults that end in a timeout. They, too, come less often to one question than they are tried."""

SLOW: dict[str, Callable[[bytes], Script]] = {
    "dribbled": lambda good: Script(tuple(step for part in _parts(good, 4) for step in (part, 0.01))),
    "chunked": lambda good: Script(_chunked(_body(good))),
    "gzip": lambda good: Script((response(gzip.compress(_body(good), mtime=0), Content_Encoding="gzip"),)),
    "the last": lambda good: Script((response(_body(good), Connection="close"),), "close"),
}
"""Good answers in unusual clothes: no faults, and every one must be read."""


RARE = ((MALFORMED, MALFORMED_ATTEMPTS - 1), (HANGS, TIMEOUT_ATTEMPTS - 2))
"""Faults that are tried less often than others, and how often they come to one question: on a busy machine, another
attempt at a question may be late."""


def _body(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[2]


def _parts(data: bytes, count: int) -> list[bytes]:
    size = -(-len(data) // count)
    return [data[at : at + size] for at in range(0, len(data), size)]


def _chunked(body: bytes) -> tuple[bytes | float, ...]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in _parts(body, 3)]
    return (head, *(step for chunk in chunks for step in (chunk, 0.005)), b"0\r\n\r\n")


class Dice:
    """Which fault meets the n-th attempt at a question, if any.

    Args:
        seed: another seed, other faults.
        rate: the share of requests that meet a fault.
        calm: share of the other requests that get their answer in unusual clothes.
    """

    def __init__(self, seed: int, rate: float, calm: float = 0.2) -> None:
        self.seed = seed
        self.rate = rate
        self.calm = calm

    def throw(self, question: str, attempt: int) -> str | None:
        """The name of the fault, or of the clothes, or None."""
        kinds: list[str | None] = []
        for number in range(1, attempt + 1):
            spent = {name for names, most in RARE if sum(kind in names for kind in kinds) >= most for name in names}
            kinds.append(self._one(question, number, spent))
        return kinds[-1]

    def _one(self, question: str, attempt: int, spent: set[str]) -> str | None:
        digest = hashlib.sha256(f"{self.seed} {attempt} {question}".encode()).digest()
        share, pick = int.from_bytes(digest[:8], "big") / 2**64, int.from_bytes(digest[8:16], "big")
        if share < self.rate:
            names = [name for name in (*BROKEN, *MALFORMED) if name not in spent]
        elif share < self.rate + (1 - self.rate) * self.calm:
            names = [*SLOW]
        else:
            return None
        return names[pick % len(names)]


class ChaosServer(Loopback):
    """OpenAI's chat completions on loopback, as a context manager.

    Args:
        dice: what goes wrong.
        latency_s: seconds before each answer.

    Attributes:
        requests: how many requests arrived per question.
        asked_by: how many arrived per process, which names itself in ``x-process``, and question.
        met: how many met each fault, or got each unusual form.
    """

    def __init__(self, dice: Dice, latency_s: float = 0.0) -> None:
        super().__init__()
        self.dice = dice
        self.latency_s = latency_s
        self.requests: Counter[str] = Counter()
        self.asked_by: Counter[tuple[str, str]] = Counter()
        self.met: Counter[str] = Counter()

    @property
    def url(self) -> str:
        """The ``api_base`` for clients."""
        return f"{self.address}/v1"

    @property
    def faults(self) -> int:
        """How many requests met a fault."""
        return sum(count for name, count in self.met.items() if name not in SLOW)

    async def route(self, request: Request) -> Script:
        """Answer, or do what the dice says."""
        if request.method == "GET":  # which models it serves: it does not say
            return Script((response(b"", 404),))
        asked = json.loads(request.body)
        question = asked["messages"][-1]["content"]
        self.requests[question] += 1
        self.asked_by[request.headers.get("x-process", ""), question] += 1
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        kind, good = self.dice.throw(question, self.requests[question]), _good(asked, question)
        if kind is None:
            return Script((good,))
        self.met[kind] += 1
        return (BROKEN | MALFORMED | SLOW)[kind](good)


def answer_to(question: str) -> str:
    """The one right answer: nobody else's."""
    return f"the answer to {question} is {hashlib.sha256(question.encode()).hexdigest()[:12]}"


def _good(asked: dict[str, Any], question: str) -> bytes:
    message = {"role": "assistant", "content": answer_to(question)}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return response(json.dumps({"id": "1", "model": asked["model"], "choices": [choice], "usage": usage}).encode())


class Patience(RetryPolicy, frozen=True):
    """Wait hundredths of a second between attempts, and count what they failed with.

    Attributes:
        failures: how many attempts have failed, by the code of their error.
    """

    failures: Counter[str] = msgspec.field(default_factory=Counter)

    def wait(self, error: LMError, attempt: int, elapsed_s: float, *, alike: int | None = None) -> float | None:
        """Count the failure, and decide as `RetryPolicy.wait`."""
        self.failures[error.code] += 1
        return super().wait(error, attempt, elapsed_s, alike=alike)


class Played(NamedTuple):
    """A run, and how many of its attempts failed with each code."""

    result: RunResult
    failures: Counter[str]


def play(server: ChaosServer, folder: Path, *, rows: int, transport: str, concurrency: int, timeout_s: float) -> Played:
    """A run of `rows` questions, recorded and cached in `folder`. Waits between attempts are of hundredths of a second."""
    file = folder / "rows.jsonl"
    asked = [f"question {number}" for number in range(rows)]
    file.write_text("".join(json.dumps({"id": text, "question": text, "answer": answer_to(text)}) + "\n" for text in asked))
    words = ["model=server", f"model.api_base={server.url}", f"model.transport={transport}", "prompt=default", "scoring=exact"]
    words += ["data=jsonl", f"data.path={file}", "data.id=id", "data.target=answer", "execution.orchestrator=none"]
    words += [f"limits.timeout_s={timeout_s}", f"limits.max_concurrency={concurrency}", "limits.max_attempts=16"]
    words += [f"cache.dir={folder / 'cache'}", f"runs_dir={folder / 'runs'}"]
    if transport == "litellm":
        _litellm()  # importing it takes seconds, which would count as time without an answer
    experiment = Experiment.create(prepare(compose(words).config()))
    assert experiment.lm.retry is not None
    experiment.lm.retry = patience = Patience(max_attempts=experiment.lm.retry.max_attempts, base_s=0.01, cap_s=0.05)
    return Played(run_to_end(experiment), patience.failures)


def check(server: ChaosServer, played: Played, rows: int) -> None:
    """Nothing lost, nothing asked twice, every answer with its question."""
    result, summary = played.result, played.result.summary
    failed = [(sample.id, sample.error) for sample in result.samples if sample.status != "ok"]
    assert not failed, failed[:5]
    assert (summary.status, summary.rows, summary.ok, summary.owed) == ("complete", rows, rows, 0)
    wrong = [(sample.id, sample.output) for sample in result.samples if sample.output != answer_to(sample.id)]
    assert not wrong, wrong[:5]
    assert sorted(sample.id for sample in result.samples) == sorted(server.requests)
    asked = sum(server.requests.values())
    spoiled = server.met["length too short"]  # what is left of such an answer may spoil the next one on its connection
    # on a machine with too much to do; a silence that ends with the connection is counted as its loss
    late = max(0, played.failures["timeout"] - sum(server.met[name] for name in HANGS))
    assert rows + server.faults <= asked <= rows + server.faults + spoiled + late, (asked, rows, server.faults, spoiled, late)
    # an attempt that is late, or on a connection that the server is about to drop, may never reach it
    assert asked <= summary.requests <= asked + UNSEEN * server.faults + late, (asked, summary.requests, late)
    assert all(sample.attempts >= server.requests[sample.id] for sample in result.samples)


def main() -> None:
    """Play on demand, and print what was met."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.chaos", description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=0.3, help="the share of requests that meet a fault")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--transport", choices=["direct", "litellm"], default="direct")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--timeout", type=float, default=2.0, help="limits.timeout_s: what a hang costs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ChaosServer(Dice(args.seed, args.rate)) as server:
        os.environ["OSTINATO_HOME"] = folder
        options = {"rows": args.rows, "transport": args.transport, "concurrency": args.concurrency, "timeout_s": args.timeout}
        began = time.perf_counter()
        played = play(server, Path(folder), **options)
        took = time.perf_counter() - began
        check(server, played, args.rows)
        asked = sum(server.requests.values())
        again = play(server, Path(folder), **options)
        assert again.result.summary.cache_hits == args.rows
        assert sum(server.requests.values()) == asked
        for name in [*BROKEN, *MALFORMED, *SLOW]:
            print(f"{name:<28}{server.met[name]:>8,}{'  (no fault)' if name in SLOW else ''}")  # noqa: T201 - a table is what it is for
        print(f"\n{args.rows:,} rows, {asked:,} requests, {server.faults:,} faults ({server.faults / asked:.1%}), {took:.1f} s")  # noqa: T201 - a table is what it is for
        print(f"most attempts at one question: {max(server.requests.values())}; every row ok; a second run asked nothing")  # noqa: T201 - a table is what it is for


if __name__ == "__main__":
    main()
