"""What each device of the request path gives: the same calls and hits, each time with one of them taken away.

python -m tests.bench.devices [--quick] [--record]
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from tests.bench.harness import Column, Contender, interleaved, ours, output, parser, publish, repeats, table
from tests.bench.server import Server

CPU = Column("client CPU, ms a row", lambda one: 1000 * one["cpu_s"] / one["calls"], digits=4)
PLAN = Column("client CPU, ms a row", lambda one: 1000 * one["plan_cpu_s"] / one["calls"], digits=4)
ALL = "all devices"


def main() -> None:
    """Measure and print three tables: uncached rows, cached rows, and single calls from disk."""
    args = parser(__doc__).parse_args()
    fast, times = 640 if args.quick else 10_000, repeats(args, full=5)
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        place, number = Path(folder), itertools.count()

        def calls(*more: object) -> Contender:
            def command() -> list[str]:
                return ours("engine", "--url", server.url, "--rows", fast, "--folder", place / str(next(number)), *more)

            return Contender(_label(more), command)

        slow = ("--transport", "litellm", "--rows", max(64, fast // 10))
        uncached = [calls(), calls(*slow), *(calls("--without", one) for one in UNCACHED)]
        engine = ("--url", server.url, "--rows", fast, "--folder", place / "hits")
        single = ("--url", server.url, "--rows", max(64, fast // 5), "--folder", place / "lm")
        output(ours("fill-rows", *engine))
        output(ours("engine", *engine, "--expect", "hits"))  # has its warm-up cached too
        output(ours("fill", *single))
        tables = [
            ("Uncached rows", interleaved(uncached, times), CPU),
            ("Cached rows", interleaved(_cached(*engine), times), PLAN),
            ("One call after another, from disk", interleaved(_single(*single), times), CPU),
        ]
    about = f"{fast:,} rows, 64 in flight, by CPU: it depends less than the clock on what else runs."
    parts = [
        f"{title}:\n\n{table(found, [column], ratio=column, references=[ALL], cost=True)}" for title, found, column in tables
    ]
    publish(args, "What each device gives", "\n\n".join([about, *parts]))


UNCACHED = ("shared_transactions", "checkpoints_beside", "rare_collections")
CACHED = ("batched_lookups", "lazy_decoding", "shared_parameters", "rare_collections")
SINGLE = ("reading_ahead", "kept_parameters")


def _cached(*engine: object) -> list[Contender]:
    hits = (*engine, "--expect", "hits")
    return [Contender(_label(more), ours("engine", *hits, *more)) for more in [(), *(("--without", one) for one in CACHED)]]


def _single(*single: object) -> list[Contender]:
    return [Contender(_label(more), ours("disk", *single, *more)) for more in [(), *(("--without", one) for one in SINGLE)]]


def _label(more: tuple[object, ...]) -> str:
    if "--transport" in more:
        return "without the direct transport (litellm)"
    return f"without {str(more[-1]).replace('_', ' ')}" if more else ALL


if __name__ == "__main__":
    main()
