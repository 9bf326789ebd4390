"""Show progress on stderr (live on a terminal, plain lines on a pipe), and the summary of a run on stdout."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

from runner.wording.numbers import dollars

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.experiment.experiment import Experiment
    from runner.records import Summary
    from runner.sweeps.sweep import Sweep

Kind = Literal["rich", "plain", "none"]
REFRESH_S = 0.25
"""Seconds between two drawings of a live bar. One takes half a millisecond, in which no row advances."""
PLAIN_EVERY_S = 5.0
"""Seconds between two lines on a pipe."""


class Display:
    """Show the progress of a run on stderr.

    Args:
        kind: ``rich`` (a live bar), ``plain`` (lines at intervals) or ``none``; None chooses by the terminal, `CI` and `TERM`.
    """

    def __init__(self, kind: Kind | None = None) -> None:
        live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
        self.kind: Kind = kind or ("rich" if live else "plain")
        self._console: Any = None

    def say(self, line: str) -> None:
        """Show one line of text."""
        if self.kind == "none":
            return
        if self._console is not None:
            self._console.print(line, highlight=False, markup=False, style="dim")
        else:
            print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def watch(self, experiment: Experiment) -> Iterator[None]:
        """Show progress within the block, while the experiment is run."""
        if self.kind == "none" or not experiment.owed:
            yield
            return
        fetched = _Fetched()
        experiment.on_fetch = fetched
        ended = threading.Event()
        show = self._live if self.kind == "rich" else self._lines
        thread = threading.Thread(target=show, args=(experiment, fetched, ended), name="display", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextlib.contextmanager
    def watch_sweep(self, sweep: Sweep) -> Iterator[None]:
        """Show progress within the block, while a sweep is run: its cells, and the rows of those in progress."""
        if self.kind == "none":
            yield
            return
        ended = threading.Event()
        show = self._live_cells if self.kind == "rich" else self._cell_lines
        thread = threading.Thread(target=show, args=(sweep, ended), name="display", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _live_cells(self, sweep: Sweep, ended: threading.Event) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"))
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True, auto_refresh=False) as progress:
            self._console = console
            cells = progress.add_task(f"{sweep.name}: cells", total=None, facts="")
            while not ended.wait(REFRESH_S):
                now = sweep.progress()
                progress.update(cells, total=now.cells, completed=now.ended, facts=str(now), refresh=True)
        self._console = None

    def _cell_lines(self, sweep: Sweep, ended: threading.Event) -> None:
        shown = ""
        while not ended.wait(PLAIN_EVERY_S):
            now = sweep.progress()
            line = f"{now.ended:,}/{now.cells:,} cells, {now}"
            if line != shown:
                print(line, file=sys.stderr, flush=True)
            shown = line

    def _live(self, experiment: Experiment, fetched: _Fetched, ended: threading.Event) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"))
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, *times, console=console, transient=True, auto_refresh=False) as progress:
            self._console = console
            rows = progress.add_task(experiment.name, total=experiment.tally.rows, completed=experiment.tally.done, facts="")
            fetch = progress.add_task("weights (MB)", total=None, visible=False, facts="")
            began = experiment.tally.done, time.monotonic()
            while not ended.wait(REFRESH_S):
                if fetched.total:
                    done, total = fetched.done // 10**6, fetched.total // 10**6
                    progress.update(fetch, total=total, completed=done, visible=done < total)
                progress.update(rows, completed=experiment.tally.done, facts=_facts(experiment, began), refresh=True)
            progress.update(rows, completed=experiment.tally.done)
        self._console = None

    def _lines(self, experiment: Experiment, fetched: _Fetched, ended: threading.Event) -> None:
        began = experiment.tally.done, time.monotonic()
        shown = began[0], 0
        while not ended.wait(PLAIN_EVERY_S):
            now = experiment.tally.done, fetched.done
            if now[1] != shown[1] and fetched.total:
                print(f"fetching weights: {now[1] / 1e6:.0f} of {fetched.total / 1e6:.0f} MB", file=sys.stderr, flush=True)
            if now[0] != shown[0]:
                print(f"{now[0]:,}/{experiment.tally.rows:,} rows, {_facts(experiment, began)}", file=sys.stderr, flush=True)
            shown = now


class _Fetched:
    """Count how much of the weights has arrived: the callback of fetching them."""

    def __init__(self) -> None:
        self.done = 0
        self.total: int | None = None

    def __call__(self, done: int, total: int | None) -> None:
        self.done, self.total = done, total


def _facts(experiment: Experiment, began: tuple[int, float]) -> str:
    """Return rate, errors, retries and cost so far, and the state of the rate limiter."""
    tally = experiment.tally
    rate = (tally.done - began[0]) / max(1e-9, time.monotonic() - began[1])
    facts = [f"{rate:.1f} rows/s", f"{tally.status['error']} errors"]
    if tally.retries:
        facts.append(f"{tally.retries} retries")
    if tally.known_usd:
        facts.append(dollars(tally.known_usd) if tally.cost_usd is not None else f"at least {dollars(tally.known_usd)}")
    if experiment.lm.limiter is not None:
        facts.append(str(experiment.lm.limiter.now()))
    return ", ".join(facts)


def print_summary(summary: Summary, folder: str, *, command: str | None = None) -> None:
    """Print the summary on stdout; with `command`, which was run, what to try next."""
    facts = [(line["measure"], line["value"]) for line in summary.table()]
    hints = _hints(summary, folder, command) if command else []
    print_table(f"{summary.name}: {summary.status}", [*facts, ("record", folder)], hints=hints)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line per row, its cells padded to columns that are two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def print_table(title: str, facts: Sequence[tuple[str, str]], *, hints: Sequence[tuple[str, str]] = ()) -> None:
    """Print a table of two columns on stdout, and below it `hints`: commands to try next, with their purpose."""
    from rich.console import Console
    from rich.table import Table

    from runner.wording.printable import printable

    console = Console(highlight=False, markup=False)
    table = Table(box=None, show_header=False, pad_edge=False, title=printable(title), title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for what, much in facts:
        table.add_row(printable(what), printable(much))
    with console.capture() as text:  # if the pipe is closed, rich would exit by itself
        console.print(table)
        if hints:
            console.print("\nTry next:", style="dim")
            for again, why in hints:
                console.print(f"  {again:<44} {why}", style="dim", markup=False, soft_wrap=True)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))


def _hints(summary: Summary, folder: str, command: str) -> list[tuple[str, str]]:
    program = command.split(" ", 1)[0]
    if summary.owed:
        more = " expect.stop_early=false" if summary.stopped_early else ""
        return [(f"{program} resume {folder}{more}", "asks only the rows that are owed")]
    hints = []
    if summary.errors:
        hints.append((f"{program} show latest --failed", "the rows that failed, and why"))
        hints.append((f"{program} retry latest", "asks them again"))
    hints.append((f"{program} show latest --rows 3", "what was asked and answered"))
    if summary.cache_hits < summary.rows:
        hints.append((command, "again: the same answers, from the cache"))
    hints.append((f"{command} sampling.temperature=0.7", "change any key"))
    hints.append((f"{command} --cfg job", "the whole config of this experiment"))
    return hints
