"""What judging costs: its CPU beside a plain row's, and how far answers and judgements overlap in time.

python -m tests.bench.judging [--rows 1000] [--repeats 3]

Each process plays one run against servers of its own: answers alone, answers with judgements, and judgements alone (of a run that
is finished). With 50 ms for each answer and each judgement, and 64 in flight, a judged run would last twice as long as either if
one waited for the other. A few rows are played first, so that imports are not measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.ours import write_rows
from tests.bench.server import JUDGE, Server

IN_FLIGHT = 64
LATENCY_MS = 50.0


def overrides(folder: Path, answers: str, judge: str | None) -> list[str]:
    """Return the run: one question a row, judged with a number of a scale if there is a judge."""
    judged = ["scoring=none"]
    if judge is not None:
        judged = scoring(judge)
    return [
        *("model=server", "model.name=bench", f"model.api_base={answers}", "prompt=default", "data=jsonl"),
        *(f"data.path={folder / 'rows.jsonl'}", "data.id=id", "sampling.max_tokens=100", "execution.orchestrator=none"),
        *(f"limits.max_concurrency={IN_FLIGHT}", f"cache.dir={folder / 'cache'}", f"runs_dir={folder / 'runs'}", *judged),
    ]


def scoring(judge: str) -> list[str]:
    """Return the judge."""
    return [
        *("scoring=judge", "scoring.rubric=Is the answer to the question right?", "scoring.labels={right: 1, wrong: 0}"),
        *("model@scoring.model=server", f"scoring.model.name={JUDGE}", f"scoring.model.api_base={judge}"),
    ]


def child(args: argparse.Namespace) -> None:
    """Play one run in this process, and print its times."""
    import runner
    from runner.experiment.rescore import score

    folder = Path(args.folder)
    chosen = overrides(folder, args.answers, None if args.kind == "answers" else args.judge)
    runner.run(overrides=[*chosen, "data.limit=8", "name=warm"])
    began, cpu = time.perf_counter(), _cpu_s()
    if args.kind == "judgements":
        score(args.run, scoring(args.judge))
    else:
        result = runner.run(overrides=chosen)
        assert result.summary.ok == args.rows, result.summary
        args.run = str(result.folder)
    sys.stdout.write(json.dumps({"wall_s": time.perf_counter() - began, "cpu_s": _cpu_s() - cpu, "run": args.run}) + "\n")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def played(kind: str, rows: int, answers: str, judge: str, run: str = "") -> dict[str, Any]:
    """Play one run in a process of its own, on a fresh cache."""
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "rows.jsonl", range(rows))
        return _process(kind, rows, answers, judge, folder, run)


def _process(kind: str, rows: int, answers: str, judge: str, folder: str, run: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.judging", "--child", "--kind", kind, "--rows", str(rows), "--folder", folder]
    command += ["--answers", answers, "--judge", judge, "--run", run]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return found


def measure(rows: int, repeats: int) -> dict[str, float]:
    """Measure in turn, and return medians and ratios."""
    found: dict[str, list[float]] = {name: [] for name in ("plain_s", "both_s", "alone_s", "overlap", "cpu")}
    with Server(latency_ms=LATENCY_MS) as answers, Server(latency_ms=LATENCY_MS) as judge:
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                write_rows(Path(folder) / "rows.jsonl", range(rows))
                plain = _process("answers", rows, answers.url, judge.url, folder, "")
                alone = _process("judgements", rows, answers.url, judge.url, folder, plain["run"])
            both = played("both", rows, answers.url, judge.url)
            found["plain_s"].append(plain["wall_s"])
            found["alone_s"].append(alone["wall_s"])
            found["both_s"].append(both["wall_s"])
            found["overlap"].append(both["wall_s"] / max(plain["wall_s"], alone["wall_s"]))
            found["cpu"].append((both["cpu_s"] - plain["cpu_s"]) / plain["cpu_s"])
    return {name: median(values) for name, values in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.judging", description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    for name in ("kind", "folder", "answers", "judge", "run"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    found = measure(args.rows, args.repeats)
    sys.stdout.write(
        f"answers alone    {found['plain_s']:.2f} s\n"
        f"judgements alone {found['alone_s']:.2f} s\n"
        f"both             {found['both_s']:.2f} s: {found['overlap']:.2f} times the longer of the two\n"
        f"CPU a judgement  {found['cpu']:.2f} times that of a plain row\n"
    )


if __name__ == "__main__":
    main()
