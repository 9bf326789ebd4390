"""What streaming costs: calls with answers of 100 tokens, plain and in 10, 25 and 100 events, without a cache.

python -m tests.bench.streams [--quick] [--record]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.calls import Asked
from tests.bench.harness import Column, Contender, interleaved, ours, parser, publish, repeats, table
from tests.bench.server import Server

REFERENCE = "plain"
CPU = Column("client CPU, ms a call", lambda one: 1000 * one["cpu_s"] / one["calls"], digits=3)
COLUMNS = [Column("calls/s", lambda one: one["calls"] / one["wall_s"]), CPU]


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--calls", type=int, help="calls a repeat (default: 10,000)")
    args = arguments.parse_args()
    calls = args.calls or (640 if args.quick else 10_000)
    texts = []
    for subject, label in (("acall", "LM.acall"), ("engine", "the engine")):
        with tempfile.TemporaryDirectory() as folder, Server() as server:
            shared = ["--url", server.url, "--rows", calls, "--concurrency", 64]

            def contender(name: str, events: int, stream: str, *, subject: str = subject, shared: list = shared) -> Contender:
                place = Path(folder)
                count = iter(range(1000))
                more = ["--model", f"events-{events}", "--stream", stream]
                return Contender(name, lambda: ours(subject, *shared, *more, "--folder", place / f"{name}-{next(count)}"))

            measured = [contender(REFERENCE, 10, "never")]
            measured += [contender(f"in {events} events", events, "always") for events in (10, 25, 100)]
            results = interleaved(measured, repeats(args, full=5), check=Asked(server))
        texts.append(f"{label}:\n\n{table(results, COLUMNS, ratio=CPU, references=[REFERENCE], cost=True)}")
    about = f"{calls:,} calls with 64 in flight, answers of 100 tokens, all events of an answer sent at once.\n\n"
    publish(args, "Streamed answers", about + "\n\n".join(texts))


if __name__ == "__main__":
    main()
