"""What the scripts share: contenders in processes of their own, interleaved repeats, a Markdown table, and RESULTS.md.

A contender is a command whose last line on stdout is one JSON object. Each repeat runs every contender once, in turn
(A B C A B C), so that what disturbs the machine disturbs them all.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
PEERS = HERE / "peers"
RESULTS = HERE / "RESULTS.md"
TIMEOUT_S = 900.0
NAMED = ("aiohttp", "diskcache", "dspy", "inspect_ai", "litellm", "msgspec", "openai", "prefect")
"""Packages whose versions are told with the results."""


@dataclass(frozen=True)
class Contender:
    """One thing that is measured.

    Args:
        label: what the table calls it.
        command: run once a repeat; its last line is a JSON object. A function is called for a fresh command each time.
    """

    label: str
    command: Sequence[str] | Callable[[], Sequence[str]]

    def run(self) -> dict[str, Any]:
        """Run it once. Raises RuntimeError with what it said when it fails."""
        command = self.command() if callable(self.command) else self.command
        return json.loads(output(command).rstrip().rpartition("\n")[2])


@dataclass(frozen=True)
class Column:
    """One column of the table: median (min-max) of `value` over a contender's results; None prints a dash."""

    title: str
    value: Callable[[dict[str, Any]], float | None]
    digits: int = 0


def interleaved(
    contenders: Sequence[Contender], repeats: int, check: Callable[[str, dict[str, Any]], None] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The results by label, in the order of the repeats; `check` is told each, and raises when it is not what was meant."""
    results: dict[str, list[dict[str, Any]]] = {contender.label: [] for contender in contenders}
    for repeat in range(repeats):
        for contender in contenders:
            progress(f"{repeat + 1}/{repeats} {contender.label}")
            results[contender.label].append(result := contender.run())
            if check is not None:
                check(contender.label, result)
    return results


def table(
    results: Mapping[str, list[dict[str, Any]]],
    columns: Sequence[Column],
    *,
    ratio: Column,
    references: Sequence[str],
    cost: bool = False,
) -> str:
    """A Markdown table: medians, their extremes, and how many times each reference's the median of the column `ratio` is.

    Args:
        results: by label.
        columns: what is shown.
        ratio: the column that is compared.
        references: the labels that it is compared with, a column each.
        cost: whether less is better (seconds); said in the table's head.
    """
    bases = [_median(results[reference], ratio) for reference in references]
    better = " (less is better)" if cost else ""
    compared = [f"{ratio.title}: times {reference}'s{better}" for reference in references]
    titles = ["", *(column.title for column in columns), *compared]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for label, found in results.items():
        own = _median(found, ratio)
        times = ["-" if own is None or not base else _times(own / base) for base in bases]
        lines.append(f"| {' | '.join([label, *(_cell(found, column) for column in columns), *times])} |")
    return "\n".join(lines)


def _median(found: Iterable[dict[str, Any]], column: Column) -> float | None:
    values = [value for one in found if (value := column.value(one)) is not None]
    return statistics.median(values) if values else None


def _cell(found: Sequence[dict[str, Any]], column: Column) -> str:
    values = [value for one in found if (value := column.value(one)) is not None]
    if not values:
        return "-"
    middle, low, high = (f"{value:,.{column.digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low}–{high})"


def _times(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


# --- processes


def output(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return its stdout. Raises RuntimeError with the end of what it said when it fails."""
    done = subprocess.run(
        command, env=environment(env), cwd=REPOSITORY, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of what is measured: nobody's keys or servers, and nothing fetched or sent home at import."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OSTINATO_", "PREFECT_", "OPENAI_", "DSPY_"))
    }
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    return {**kept, **quiet, **(more or {})}


def ours(subject: str, *arguments: object) -> list[str]:
    """The command of one of `tests.bench.ours`'s subjects."""
    return [sys.executable, "-m", "tests.bench.ours", subject, *map(str, arguments)]


def peer(script: str, *arguments: object, python: str = sys.executable) -> list[str]:
    """The command of a script of peers/, under the Python of the environment that the peer lives in."""
    return [python, str(PEERS / script), *map(str, arguments)]


@cache
def versions(python: str = sys.executable) -> dict[str, str]:
    """Versions of the `NAMED` packages in an environment."""
    if python == sys.executable:
        installed = {one.metadata["Name"].lower().replace("-", "_"): one.version for one in importlib.metadata.distributions()}
    else:
        code = (
            "import importlib.metadata as m, json; print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
        )
        found = json.loads(output([python, "-c", code]))
        installed = {name.lower().replace("-", "_"): version for name, version in found.items()}
    return {name: installed[name] for name in NAMED if name in installed}


def progress(line: str) -> None:
    """Say on stderr what is being done."""
    sys.stderr.write(f"  {line}\n")
    sys.stderr.flush()


# --- the command line, and what is kept


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments that every script has."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few seconds; its figures mean little")
    parser.add_argument(
        "--repeats", type=int, help="how often everything is measured (default: what takes a few minutes; quick: 1)"
    )
    parser.add_argument("--peer-python", action="append", default=[], metavar="PATH", help="python of an environment with peers")
    parser.add_argument("--own", action="store_true", help="without peers, also those that are installed here")
    parser.add_argument("--record", action="store_true", help="append the tables to tests/bench/RESULTS.md")
    parser.set_defaults(busy=os.getloadavg()[0])  # before we add to it ourselves
    return parser


def repeats(args: argparse.Namespace, full: int) -> int:
    """How often to measure."""
    return args.repeats or (1 if args.quick else full)


def peers_with(args: argparse.Namespace, package: str) -> list[tuple[str, str]]:
    """The (python, version) of each environment given that has `package`, this one first; none with `--own`."""
    if args.own:
        return []
    pythons = [sys.executable, *args.peer_python]
    return [(python, found[package]) for python in pythons if package in (found := versions(python))]


def publish(args: argparse.Namespace, title: str, text: str) -> None:
    """Print the tables, and append them to RESULTS.md when asked to."""
    whole = f"## {title}{' (quick: a smoke run)' if args.quick else ''}\n\n{_where(args)}\n\n{text}\n"
    sys.stdout.write(whole)
    if args.record:
        progress(f"recorded in {RESULTS.name}")
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(f"\n{whole}")


def _where(args: argparse.Namespace) -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    machine = f"{platform.system()}, {os.cpu_count()} cores of {_cpu()}, load {args.busy:.1f} before"
    lines = [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {_commit()}, {python}, {machine}.",
        f"Ostinato's environment: {_named(versions())}.",
        *(f"A peer's: {_named(versions(path))}." for path in args.peer_python),
    ]
    return "\n".join(lines)


def _named(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
