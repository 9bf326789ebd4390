"""Wall time of a whole process: 1,000 prompts, cold and again all cached, and `import runner`.

python -m tests.bench.whole [--quick] [--peer-python PATH] [--record]

Ostinato is run as people run it (`ostinato run`), without an orchestrator, with a Prefect server that is kept, and with a
private one; inspect_ai by `inspect eval` on the same rows; dspy by a script that asks everything through LM.acall.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.harness import PEERS, Column, output, parser, peer, peers_with, progress, publish, repeats, table
from tests.bench.ours import write_rows
from tests.bench.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

REFERENCE = "Ostinato, no orchestrator"
CONCURRENCY = 64
COLD = Column("cold, s", lambda one: one["cold_s"], digits=2)
CACHED = Column("all cached, s", lambda one: one["cached_s"], digits=2)
START = Column("s", lambda one: one["wall_s"], digits=3)
CHILDREN = Column("CPU, s", lambda one: one["cpu_s"], digits=3)


@dataclass(frozen=True)
class Whole:
    """One command, run twice on a fresh folder: cold, then cached.

    Args:
        label: what the table calls it.
        command: the command for a folder.
        env: set in addition, for a folder.
    """

    label: str
    command: Callable[[Path], Sequence[str]]
    env: Callable[[Path], Mapping[str, str]]

    def run(self, server: Server, rows: int) -> dict[str, Any]:
        """Both times. Raises RuntimeError when the cold run did not ask for every row, or the cached one asked."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            cold_s, asked = _timed(self.command(place), self.env(place), server)
            cached_s, again = _timed(self.command(place), self.env(place), server)
        if asked != rows or again:
            raise RuntimeError(f"{self.label}: {asked} requests cold and {again} cached, for {rows} rows")
        return {"cold_s": cold_s, "cached_s": cached_s}


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, help="prompts (default: 1,000)")
    args = arguments.parse_args()
    rows = args.rows or (100 if args.quick else 1000)
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        work = Path(folder)
        data = write_rows(work / "rows.jsonl", range(rows))
        with kept_server(work / "kept") as kept:
            measured = contenders(args, server.url, data, private=work / "private", kept=kept)
            results: dict[str, list[dict[str, Any]]] = {one.label: [] for one in measured}
            for repeat in range(repeats(args, full=3)):
                for one in measured:
                    progress(f"{repeat + 1} {one.label}")
                    results[one.label].append(one.run(server, rows))
    about = (
        f"{rows:,} prompts, {CONCURRENCY} in flight, from the start of the process to its end; a new cache for each cold run.\n\n"
    )
    wholes = table(results, [COLD, CACHED], ratio=COLD, references=[REFERENCE], cost=True)
    publish(args, "Whole processes", f"{about}{wholes}\n\n{imports(3 if args.quick else 21)}")


def contenders(args: Any, url: str, data: Path, *, private: Path, kept: Path) -> list[Whole]:
    """Ostinato in its three ways, and the peers that are installed."""

    def own(label: str, orchestrator: str, home: Path) -> Whole:
        return Whole(label, lambda folder: _ostinato(url, data, folder, orchestrator), lambda _: _home(home))

    def dspy(python: str, version: str) -> Whole:
        rows = sum(1 for _ in data.open("rb"))
        return Whole(
            f"dspy {version}, LM.acall",
            lambda folder: peer("dspy_lm.py", "whole", folder, url, rows, CONCURRENCY, python=python),
            lambda _: {},
        )

    def inspect(python: str, version: str) -> Whole:
        return Whole(
            f"inspect_ai {version}", lambda folder: _inspect(python, data, folder), lambda folder: _inspect_env(url, folder)
        )

    return [
        own(REFERENCE, "none", private),
        own("Ostinato, Prefect server kept", "prefect", kept),
        own("Ostinato, private Prefect server", "prefect", private),
        *(inspect(*found) for found in peers_with(args, "inspect_ai")),
        *(dspy(*found) for found in peers_with(args, "dspy")),
    ]


@contextlib.contextmanager
def kept_server(home: Path) -> Iterator[Path]:
    """A Prefect server that `ostinato server start` keeps, in an OSTINATO_HOME of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    control = [sys.executable, "-m", "runner", "server"]
    progress("starting a Prefect server")
    output([*control, "start", "--port", str(port)], _home(home))
    try:
        yield home
    finally:
        output([*control, "stop"], _home(home))


def _ostinato(url: str, data: Path, folder: Path, orchestrator: str) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "runner",
            "run",
            "--display",
            "none",
            "model=server",
            "model.name=bench",
            f"model.api_base={url}",
        ),
        *("data=jsonl", f"data.path={data}", "data.id=id", "prompt=default", "scoring=none", "sampling.max_tokens=100"),
        *(f"limits.max_concurrency={CONCURRENCY}", f"cache.dir={folder}/cache", f"runs_dir={folder}/runs"),
        f"execution.orchestrator={orchestrator}",
    ]


def _home(home: Path) -> dict[str, str]:
    return {"OSTINATO_HOME": str(home), "PREFECT_HOME": str(home / "no-profile")}


def _inspect(python: str, data: Path, folder: Path) -> list[str]:
    task = os.path.relpath(PEERS / "inspect_task.py")
    return [
        *(python, "-m", "inspect_ai", "eval", task, "-T", f"data={data}", "--model", "openai-api/bench/bench"),
        *("--temperature", "0", "--max-tokens", "100", "--max-connections", str(CONCURRENCY), "--display", "none"),
        *("--log-dir", f"{folder}/logs", "--no-log-realtime", "--log-level", "error"),
    ]


def _inspect_env(url: str, folder: Path) -> dict[str, str]:
    return {"BENCH_API_KEY": "none", "BENCH_BASE_URL": url, "INSPECT_CACHE_DIR": f"{folder}/cache"}


def _timed(command: Sequence[str], env: Mapping[str, str], server: Server) -> tuple[float, int]:
    """Seconds that a command takes, and how many requests it sends."""
    before, began = server.count(), time.perf_counter()
    output(command, env)
    return time.perf_counter() - began, server.count() - before


_TIMED = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
wall = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall_s": wall, "cpu_s": used.ru_utime + used.ru_stime}))
"""


def imports(times: int) -> str:
    """`import runner` beside an empty Python, as a table."""
    lines = ["pass", "import runner", "from runner import LM", "from runner import run"]
    results: dict[str, list[dict[str, Any]]] = {f"python -c '{line}'": [] for line in lines}
    for _ in range(times):
        for line, found in zip(lines, results.values(), strict=True):
            found.append(json.loads(output([sys.executable, "-c", _TIMED, line])))
    return table(results, [START, CHILDREN], ratio=START, references=["python -c 'pass'"], cost=True)


if __name__ == "__main__":
    main()
