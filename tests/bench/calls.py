"""Uncached calls a second against a server with no latency: raw aiohttp (the limit), Ostinato's engine and LM, and its peers.

python -m tests.bench.calls [--quick] [--peer-python PATH] [--record]
"""

from __future__ import annotations

import itertools
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.harness import Column, Contender, interleaved, ours, parser, peer, peers_with, publish, repeats, table
from tests.bench.peers.fanout import WARM_UP
from tests.bench.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = "raw aiohttp"
RATE = Column("calls/s", lambda one: one["calls"] / one["wall_s"])
COLUMNS = [
    RATE,
    Column("client CPU, ms a call", lambda one: 1000 * one["cpu_s"] / one["calls"], digits=3),
    Column("whole run, calls/s", lambda one: one["calls"] / one["whole_s"] if "whole_s" in one else None),
]


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--concurrency", type=int, default=64, help="requests in flight (default: 64)")
    arguments.add_argument("--calls", type=int, help="calls a repeat of what is fast; a tenth of what is slow (default: 20,000)")
    args = arguments.parse_args()
    fast = args.calls or (640 if args.quick else 20_000)
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        measured = contenders(args, server.url, Path(folder), fast, max(64, fast // 10))
        results = interleaved(measured, repeats(args, full=3), check=Asked(server))
    text = table(results, COLUMNS, ratio=RATE, references=[REFERENCE])
    about = (
        f"{fast:,} calls ({max(64, fast // 10):,} of the slow ones) with {args.concurrency} in flight, no cache hits; "
        "the server has a process of its own. `calls/s` of the engine is the playing alone; `whole run` adds composing, "
        "planning and finishing the record.\n\n"
    )
    publish(args, "Uncached calls", about + text)


def contenders(args, url: str, folder: Path, fast: int, slow: int) -> list[Contender]:
    """What is installed, the limit first."""
    width = args.concurrency
    number = itertools.count()

    def own(subject: str, *more: str) -> Contender:
        def command() -> list[str]:
            place = folder / f"{subject}-{next(number)}"
            return ours(subject, "--url", url, "--rows", fast, "--concurrency", width, "--folder", place, *more)

        label = {"engine": "Ostinato, engine", "acall": "Ostinato, LM.acall"}[subject]
        return Contender(f"{label}{', cache writes' if '--cached' in more else ''}", command)

    measured = [
        Contender(REFERENCE, peer("aiohttp_calls.py", url, fast, width)),
        own("engine"),
        own("acall"),
        own("acall", "--cached"),
    ]
    for package, script in (("litellm", "litellm_calls.py"), ("openai", "openai_calls.py")):
        found = peers_with(args, package)[:1]
        measured += [
            Contender(f"{package} {version}", peer(script, url, slow, width, python=python)) for python, version in found
        ]
    for python, version in peers_with(args, "dspy"):
        for what in ("calls", "writes"):
            label = f"dspy {version}, LM.acall{', cache writes' if what == 'writes' else ''}"
            measured.append(Contender(label, partial(_dspy, python, what, folder, number, url, slow, width)))
    return measured


def _dspy(python: str, what: str, folder: Path, number: Iterator[int], *arguments: object) -> list[str]:
    return peer("dspy_lm.py", what, folder / f"dspy-{next(number)}", *arguments, python=python)


class Asked:
    """Sees that every call has reached the server: an answer from a cache would be measured as a fast call."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before = server.count()

    def __call__(self, label: str, result: dict[str, Any]) -> None:
        now = self._server.count()
        came, self._before = now - self._before, now
        if came < result["calls"] + WARM_UP:
            raise RuntimeError(f"{label}: {came} requests for {result['calls']} calls and {WARM_UP} to warm up")


if __name__ == "__main__":
    main()
