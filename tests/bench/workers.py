"""Measure workers against one process: `python -m tests.bench.workers --help`. Pairs, one after the other; ratios of times.

Times are from the first request to the end of the record, without the start of the cluster. CPU is that of the head.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import runner

SCORER = """import time

def grade(output, target, row):
    end = time.process_time() + 0.005
    while time.process_time() < end:
        pass
    return 1.0
"""


def measured(folder: Path, rows: int, *, workers: int, scorer: bool, concurrency: int) -> tuple[float, float]:
    """Play rows on the fake model. Return seconds, and CPU seconds of this process, from the first request to the end."""
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"id": f"r{n}", "q": f"question {n}"}) for n in range(rows)))
    (folder / "grade.py").write_text(SCORER)
    spread = ["execution.workers.kind=dask", f"execution.workers.n={workers}"] if workers else []
    scoring = ["scoring=python", f"scoring.function={folder}/grade.py:grade"] if scorer else ["scoring=none"]
    data = ["data=jsonl", f"data.path={folder}/rows.jsonl", "data.id=id", "prompt.user='{{ q }}'", f"runs_dir={folder}/runs"]
    limits = [f"limits.max_concurrency={concurrency}", "cache.mode=refresh"]
    cpu = []
    result = runner.run(
        overrides=["model=fake", "execution.orchestrator=none", *data, *scoring, *spread, *limits],
        watch=lambda experiment: _Watch(experiment, cpu),
    )
    ended, used = time.time(), _cpu() - cpu[0]
    first = min(datetime.datetime.fromisoformat(sample.started_at).timestamp() for sample in result.samples if sample.started_at)
    assert result.summary.ok == rows
    return ended - first, used


class _Watch:
    """Note the CPU when the first sample is kept."""

    def __init__(self, experiment, cpu) -> None:
        keep, self._cpu = experiment.count, cpu

        def count(sample):
            if not cpu:
                cpu.append(_cpu())
            keep(sample)

        experiment.count = count

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--scorer", action="store_true", help="each row is scored by 5 ms of Python")
    given = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {0: [], given.workers: []}
    for _ in range(given.pairs):
        for workers, times in found.items():
            with tempfile.TemporaryDirectory() as folder:
                times.append(
                    measured(Path(folder), given.rows, workers=workers, scorer=given.scorer, concurrency=given.concurrency)
                )
                print(workers, "workers:", *(f"{one:.2f}" for one in times[-1]), flush=True)  # noqa: T201
    alone, spread = (statistics.median(wall for wall, _ in times) for times in found.values())
    head = statistics.median(cpu for _, cpu in found[given.workers])
    print(f"one process {alone:.2f} s, {given.workers} workers {spread:.2f} s: {alone / spread:.2f} times as fast")  # noqa: T201
    print(f"CPU of the head: {head / given.rows * 1000:.3f} ms a row")  # noqa: T201


if __name__ == "__main__":
    os.environ.setdefault("OSTINATO_HOME", tempfile.mkdtemp())
    main()
