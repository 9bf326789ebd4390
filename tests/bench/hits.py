"""Cache hits a second: the engine on a run cached whole, LM.__call__ from memory and from disk, the cache alone, and dspy.

python -m tests.bench.hits [--quick] [--peer-python PATH] [--record]
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.bench.harness import Column, Contender, interleaved, ours, output, parser, peer, peers_with, publish, repeats, table
from tests.bench.server import Server

ROWS = Column("rows/s", lambda one: one["calls"] / one.get("plan_s", one["wall_s"]))
WHOLE = Column("whole run, rows/s", lambda one: one["calls"] / one["whole_s"] if "whole_s" in one else None)
CPU = Column("CPU, ms a row", lambda one: 1000 * one.get("plan_cpu_s", one["cpu_s"]) / one["calls"], digits=4)


def main() -> None:
    """Fill the caches, measure, and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, help="rows of the engine's run (default: 20,000)")
    arguments.add_argument("--calls", type=int, help="calls of an LM (default: 2,000)")
    args = arguments.parse_args()
    rows, calls = args.rows or (2000 if args.quick else 20_000), args.calls or (200 if args.quick else 2000)
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        measured, references = filled(args, server, Path(folder), rows, calls)
        results = interleaved(measured, repeats(args, full=5), check=Unasked(server))
    about = (
        f"Engine: {rows:,} rows, all cached; rows to records, from the call of `run` to the last line of samples.jsonl; the "
        f"whole adds composing the config and the end of the record. LM: {calls:,} calls, one after the other, by a process that "
        "has all of them in memory, or none. `get_many`: batches of 256 from disk.\n\n"
    )
    publish(args, "Cache hits", about + table(results, [ROWS, WHOLE, CPU], ratio=ROWS, references=references))


def filled(args, server: Server, folder: Path, rows: int, calls: int) -> tuple[list[Contender], list[str]]:
    """The contenders, with their caches filled, and those that are the references: each dspy's disk hits."""
    engine = ("--url", server.url, "--rows", rows, "--folder", folder / "engine")
    lm = ("--url", server.url, "--rows", calls, "--folder", folder / "lm")
    output(ours("fill-rows", *engine))
    output(ours("fill", *lm))
    output(ours("engine", *engine, "--expect", "hits"))  # has its warm-up cached too
    measured = [
        Contender("Ostinato, engine", ours("engine", *engine, "--expect", "hits")),
        Contender("Ostinato, Cache.get_many", ours("get-many", *engine)),
        Contender("Ostinato, LM memory hit", ours("memory", *lm)),
        Contender("Ostinato, LM disk hit", ours("disk", *lm)),
    ]
    references = []
    for python, version in peers_with(args, "dspy"):
        place = (folder / f"dspy-{version}", server.url, calls, 64)
        output(peer("dspy_lm.py", "fill", *place, python=python))
        hits = {f"dspy {version}, LM {what} hit": peer("dspy_lm.py", what, *place, python=python) for what in ("memory", "disk")}
        measured += [Contender(label, command) for label, command in hits.items()]
        references.append(f"dspy {version}, LM disk hit")
    return measured, references or ["Ostinato, LM disk hit"]


class Unasked:
    """Sees that nothing reaches the server: a miss would be measured as a slow hit."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before = server.count()

    def __call__(self, label: str, _: dict[str, Any]) -> None:
        if came := self._server.count() - self._before:
            raise RuntimeError(f"{label}: {came} requests were sent, where all is cached")


if __name__ == "__main__":
    main()
