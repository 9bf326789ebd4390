"""Scale: memory and speed on 100,000 and 1,000,000 cached rows, and 10,000 rows on a server that takes 200 ms, 256 at once.

python -m tests.bench.scale [--quick] [--only cached|latency] [--record]
"""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.harness import Column, Contender, interleaved, ours, output, parser, peer, progress, publish, repeats, table
from tests.bench.ours import write_rows
from tests.bench.server import Server

RATE = Column("rows/s", lambda one: one["calls"] / one["plan_s"])
MEMORY = Column("peak memory, MB", lambda one: one["rss_mb"])
WALL = Column("wall, s", lambda one: one["wall_s"], digits=2)
CPU = Column("client CPU, s", lambda one: one["cpu_s"], digits=2)
WHOLE = Column("whole run, s", lambda one: one.get("whole_s"), digits=2)


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--only", choices=["cached", "latency"], help="one of the two measurements (default: both)")
    arguments.add_argument("--rows", type=int, help="cached rows; a tenth of them is the reference (default: 1,000,000)")
    args = arguments.parse_args()
    if args.only != "latency":
        publish(args, "Scale: cached rows", cached(args.rows or (10_000 if args.quick else 1_000_000), repeats(args, full=1)))
    if args.only != "cached":
        publish(args, "Scale: latency", latency(1024 if args.quick else 10_000, 200.0, 256, repeats(args, full=3)))


def cached(rows: int, times: int) -> str:
    """Runs of a tenth and of all of `rows`, and of one row; their caches are filled directly, and nothing can be sent."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        progress(f"filling the cache with {rows:,} answers")
        output(ours("fill-rows", "--rows", rows, "--folder", place))
        sizes = {f"{size:,} rows": size for size in (rows // 10, 1, rows)}
        for size in sizes.values():
            write_rows(place / f"rows-{size}.jsonl", range(size))
        rest = ("--folder", place, "--expect", "hits", "--no-warm-up")
        measured = [Contender(label, ours("engine", "--rows", size, *rest)) for label, size in sizes.items()]
        results = interleaved(measured, times)
    return "Every row is cached; one process each, which starts with this run.\n\n" + table(
        results, [MEMORY, RATE, WHOLE], ratio=MEMORY, references=[f"{rows // 10:,} rows"], cost=True
    )


def latency(rows: int, latency_ms: float, concurrency: int, times: int) -> str:
    """Playing `rows` on a server that takes `latency_ms`, beside raw aiohttp and the ideal (nothing lost between two calls).

    Of 10,000 rows, 256 at once, some place must play 40: no order of playing takes less than 40 times the latency.
    """
    ideal_s = math.ceil(rows / concurrency) * latency_ms / 1000
    whole = Column("whole run: times the ideal's", lambda one: one["whole_s"] / ideal_s if "whole_s" in one else None, digits=2)
    number = itertools.count()
    with tempfile.TemporaryDirectory() as folder, Server(latency_ms=latency_ms) as server:

        def engine() -> list[str]:
            place = Path(folder, str(next(number)))
            return ours("engine", "--url", server.url, "--rows", rows, "--concurrency", concurrency, "--folder", place)

        measured = [
            Contender("raw aiohttp", peer("aiohttp_calls.py", server.url, rows, concurrency)),
            Contender("Ostinato, engine (playing)", engine),
        ]
        results: dict[str, list[dict[str, Any]]] = {"ideal": [{"wall_s": ideal_s, "cpu_s": 0.0}]}
        results |= interleaved(measured, times)
    about = f"{rows:,} rows, {latency_ms:g} ms each, {concurrency} in flight; the ideal loses nothing between two calls."
    return f"{about}\n\n" + table(results, [WALL, CPU, WHOLE, whole], ratio=WALL, references=["ideal"], cost=True)


if __name__ == "__main__":
    main()
