"""Wall and CPU of whole commands, beside the same commands of another checkout: first starts, local models, sweeps, reading.

python -m tests.bench.commands [--other PATH] [--only NAME ...] [--quick] [--repeats N] [--record]

Every command is a process of its own in a folder of its own; ours and the other's alternate. `--repeatable` plays the local
experiments ten times at several concurrencies instead, and prints a digest of each run's outputs.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cache import Cache
from runner.types import Choice, Request, Response, Usage
from tests.bench.harness import REPOSITORY, TIMEOUT_S, Column, environment, parser, progress, publish, repeats, table
from tests.bench.ours import write_rows
from tests.bench.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OURS = "this checkout"
OTHER = "the other"
WALL = Column("s", lambda one: one["wall_s"], digits=2)
CPU = Column("CPU, s", lambda one: one["cpu_s"], digits=2)
MEMORY = Column("largest process so far, MB", lambda one: one["peak_mb"])
EVALUATED = Column("prompt tokens evaluated", lambda one: one["evaluated"])


@dataclass(frozen=True)
class Place:
    """Where a command is played: a folder, an OSTINATO_HOME, a checkout, and what all cases share."""

    folder: Path
    home: Path
    checkout: Path
    url: str
    rows: int

    def play(self, *words: str) -> dict[str, Any]:
        """Run `ostinato` with these words to its end; raise RuntimeError if it fails. CPU includes the processes it started."""
        env = environment(
            {"OSTINATO_HOME": str(self.home), "PREFECT_HOME": str(self.home / "none"), "PYTHONPATH": str(self.checkout)}
        )
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-P", "-m", "runner", *words]
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode not in (0, 3):
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        usage = json.loads(done.stdout).get("usage") if done.stdout.startswith("{") else None
        evaluated = usage["prompt_tokens"] - usage["cached_tokens"] if usage else None
        return {"wall_s": wall, "cpu_s": cpu, "peak_mb": after.ru_maxrss / 1024, "evaluated": evaluated, "out": done.stdout}

    def asked(self, *words: str) -> list[str]:
        """Return the words of a run of the bench server's model."""
        model = ("model=server", "model.name=bench", f"model.api_base={self.url}", "prompt=default", "scoring=none")
        return [*("run", "--display", "none"), *model, "data=jsonl", f"data.path={self.folder}/rows.jsonl", "data.id=id", *words]


@dataclass(frozen=True)
class Case:
    """What is measured: `before` prepares a place, `words` are the command's. If `shared`, repeats use one place."""

    title: str
    words: Callable[[Place], Sequence[str]]
    before: Callable[[Place], object] = lambda _: None
    shared: bool = False


NONE, PREFECT = "execution.orchestrator=none", "execution.orchestrator=prefect"
SWEEP = ("-m", "sampling.temperature=range(0,2,0.01)", "data.limit=20")


def _with_weights(place: Place) -> None:
    source = Path(os.environ.get("OSTINATO_BENCH_HOME", Path.home() / ".cache/ostinato")) / "models"
    shutil.copytree(source, place.home / "models", copy_function=os.link)


def _rows(place: Place) -> None:
    write_rows(place.folder / "rows.jsonl", range(place.rows))


def _played(*words: str, times: int = 1) -> Callable[[Place], None]:
    def before(place: Place) -> None:
        _rows(place)
        for _ in range(times):
            place.play(*place.asked(*words))

    return before


def _two_runs(place: Place) -> None:
    _rows(place)
    for temperature in ("0", "0.5"):
        words = (
            NONE,
            "limits.max_concurrency=64",
            f"sampling.temperature={temperature}",
            f"name=t{temperature[-1]}",
            "scoring=exact",
        )
        place.play(*place.asked(*words, "data.target=id"))


def _many_runs(place: Place) -> None:
    """Play one run of two rows, and copy it until there are 1,000 runs of ten experiments."""
    write_rows(place.folder / "rows.jsonl", range(2))
    place.play(*place.asked(NONE, "name=e0"))
    run = next((place.folder / "runs" / "e0").glob("2*"))
    for number in range(1, 1000):
        name = f"20261{number % 2}01-{number // 3600:02}{number // 60 % 60:02}{number % 60:02}-{number:06x}"
        shutil.copytree(run, place.folder / "runs" / f"e{number % 10}" / name)


def _full_cache(place: Place) -> None:
    """Fill the cache with 100 entries per row of the case, in the form that both checkouts read."""
    cache = Cache(place.home / "cache")
    answer = Response(choices=[Choice(text="The answer is 632.", finish_reason="stop")], model="bench", usage=Usage(14, 5, 19))
    for begin in range(0, 100 * place.rows, 1000):
        keys = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(begin, begin + 1000)]
        asked = [Request(model="openai/bench", messages=[{"role": "user", "content": f"Question {key}"}]) for key in keys]
        cache.put_many([(key, answer, request, None) for key, request in zip(keys, asked, strict=True)])
    cache.close()


CASES = {
    "first": Case("README's first run, fresh home", lambda _: ["run", "--json"], _with_weights),
    "capitals": Case("capitals, `none`", lambda _: ["run", "--json", NONE], _with_weights),
    "fewshot": Case("capitals_fewshot, `none`", lambda _: ["run", "--json", NONE, "experiment=capitals_fewshot"], _with_weights),
    "fresh": Case("1,000 rows, private Prefect, fresh home", lambda place: place.asked(PREFECT), _rows),
    "used": Case("the same, used home", lambda place: place.asked(PREFECT, "cache.mode=off"), _played(PREFECT, "data.limit=1")),
    "sweep": Case("sweep of 200 × 20, `none`", lambda place: place.asked(NONE, *SWEEP), _rows),
    "sweep-prefect": Case(
        "sweep of 200 × 20, Prefect, used home", lambda place: place.asked(PREFECT, *SWEEP), _played(PREFECT, "data.limit=1")
    ),
    "sweep-cached": Case(
        "sweep of 200 × 20, all cached", lambda place: place.asked(NONE, *SWEEP, "runs_dir=again"), _played(NONE, *SWEEP)
    ),
    "start": Case(
        "20 rows, all cached, `none`",
        lambda place: place.asked(NONE, "data.limit=20"),
        _played(NONE, "data.limit=20"),
        shared=True,
    ),
    "cached": Case("100,000 rows, all cached, `none`", lambda place: place.asked(NONE), _played(NONE), shared=True),
    "compare": Case("compare of two runs", lambda _: ["compare", "t0/latest", "t5/latest"], _two_runs, shared=True),
    "export": Case("export of a run as CSV", lambda _: ["export", "t0/latest", "--to", "csv"], _two_runs, shared=True),
    "report": Case("report of a run", lambda _: ["report", "t0/latest"], _two_runs, shared=True),
    "ls": Case("ls of 1,000 runs", lambda _: ["ls"], _many_runs, shared=True),
    "clear": Case("cache clear of 100,000 entries", lambda _: ["cache", "clear", "--yes"], _full_cache),
    "prune": Case("cache prune of 100,000 entries", lambda _: ["cache", "prune", "--older-than", "0"], _full_cache),
}
LARGE = ("cached", "compare", "export", "report")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--other", type=Path, help="another checkout, run by the same Python")
    arguments.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    arguments.add_argument(
        "--repeatable", action="store_true", help="ten runs of the local experiments: are the answers the same?"
    )
    args = arguments.parse_args()
    checkouts = {OURS: REPOSITORY} | ({OTHER: args.other.resolve()} if args.other else {})
    if args.repeatable:
        repeatable()
        return
    parts = []
    with Server() as server:
        for name in args.only:
            rows = (300 if args.quick else 100_000) if name in LARGE else 1000
            results = measured(CASES[name], checkouts, repeats(args, full=7), server.url, rows)
            columns = [WALL, CPU, MEMORY, *([EVALUATED] if name in ("first", "capitals", "fewshot") else [])]
            references = [OTHER if args.other else OURS]
            parts.append(f"{CASES[name].title}\n\n{table(results, columns, ratio=WALL, references=references, cost=True)}")
    publish(args, "Whole commands", "\n\n".join(parts))


def measured(case: Case, checkouts: dict[str, Path], times: int, url: str, rows: int) -> dict[str, list[dict[str, Any]]]:
    """Play a case in each checkout in turn."""
    results: dict[str, list[dict[str, Any]]] = {label: [] for label in checkouts}
    with tempfile.TemporaryDirectory() as root:
        for repeat in range(times):
            for label, checkout in checkouts.items():
                progress(f"{repeat + 1}/{times} {case.title}: {label}")
                folder = Path(root) / (label if case.shared else f"{label} {repeat}")
                place = Place(folder, folder / "home", checkout, url, rows)
                if not folder.exists():
                    folder.mkdir()
                    place.home.mkdir()
                    case.before(place)
                results[label].append(place.play(*case.words(place)))
    return results


def repeatable() -> None:
    """Play the local experiments at several concurrencies and print a digest of all outputs of each run."""
    for experiment in ("capitals", "fewshot"):
        for at, concurrency in enumerate((1, 4, 8, 16, 1, 4, 8, 16, 2, 3)):
            with tempfile.TemporaryDirectory() as root:
                place = Place(Path(root), Path(root) / "home", REPOSITORY, "", 0)
                place.home.mkdir()
                _with_weights(place)
                told = place.play(
                    *CASES[experiment].words(place), f"limits.max_concurrency={concurrency}", f"launch.parallel={at % 4 + 1}"
                )
                lines = (Path(json.loads(told["out"])["run"]) / "samples.jsonl").read_text().splitlines()
                outputs = sorted((one["id"], one["output"]) for one in map(json.loads, lines))
                digest = hashlib.sha256(json.dumps(outputs).encode()).hexdigest()[:12]
                what = f"{experiment}, {concurrency} in flight, {at % 4 + 1} slots"
                sys.stdout.write(f"{what}: {digest}, {told['evaluated']} prompt tokens evaluated\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
