"""A conversation of five turns against five plain rows: CPU of the process, without the server.

python -m tests.bench.turns [--rows N] [--repeats N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import runner
from tests.bench.server import Server

TURNS = 5


def cpu_s(url: str, rows: int, *prompt: str) -> float:
    """Run an experiment, and return the CPU seconds that this process took for it."""
    Path("rows.jsonl").write_text(
        "".join(json.dumps({"id": str(n), "question": f"What is {n} + {n}?"}) + "\n" for n in range(rows))
    )
    data = ("data=jsonl", "data.path=rows.jsonl", "data.id=id", "scoring=none", "prompt=default", *prompt)
    rest = ("cache.mode=off", "execution.orchestrator=none", "limits.max_concurrency=32", "sampling.max_tokens=16")
    began = time.process_time()
    run = runner.run(overrides=["model=server", f"model.api_base={url}", *data, *rest])
    spent = time.process_time() - began
    assert run.summary.ok == rows, run.summary
    return spent


def main() -> None:
    """Measure both, one after the other, and print the ratio of the medians."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=400, help="conversations")
    arguments.add_argument("--repeats", type=int, default=5)
    args = arguments.parse_args()
    script = "prompt.turns=['And then?', 'And then?', 'And then?', 'And then?']"
    plain: list[float] = []
    turns: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        os.chdir(folder)
        os.environ["OSTINATO_HOME"] = f"{folder}/home"
        cpu_s(server.url, 20)  # imports
        cpu_s(server.url, 20, script)
        empty = cpu_s(server.url, 1)
        for _ in range(args.repeats):
            plain.append(cpu_s(server.url, TURNS * args.rows) - empty)
            turns.append(cpu_s(server.url, args.rows, script) - empty)
        os.chdir("/")
    whole, parts = statistics.median(turns), statistics.median(plain)
    per = 1000 / (TURNS * args.rows)
    sys.stdout.write(
        f"plain row {parts * per:.3f} ms, turn {whole * per:.3f} ms of CPU; {TURNS} turns / {TURNS} rows: {whole / parts:.2f}\n"
    )


if __name__ == "__main__":
    main()
