"""Run a sweep to its end: `sweep` and `resume_sweep`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from runner.analysis.cells import ranked
from runner.errors import ConfigError
from runner.experiment.run import EXIT_CODES, FAILED, UNDECIDED, exit_code
from runner.records import Summary, SweepFolder, find_record
from runner.records.sweep import SweepManifest
from runner.records.tags import checked_tags
from runner.session.loop import Notify, silent
from runner.session.orchestrator import orchestrator
from runner.session.sitting import sitting
from runner.sweeps.plan import Plan
from runner.sweeps.sweep import Sweep

ORCHESTRATORS: dict[str, str | None] = {"none": None, "prefect": "flows.orchestrate:run_sweep"}
"""Orchestrators by ``execution.orchestrator``: a coroutine function that calls `Sweep.drive`."""

Watch = Callable[[Sweep], AbstractContextManager[Any]]


class SweepResult(msgspec.Struct, frozen=True):
    """The result of `sweep`: the folder of the record, and its manifest. `rows` reads the record each time."""

    folder: Path
    manifest: SweepManifest

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One tidy row per cell, best first, with ``best`` and ``tied``."""
        return ranked(SweepFolder.open(self.folder))

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 0 complete, 3 cells failed or owed, 1 nothing was answered, 130 interrupted.

        Where something is expected of the cells: 100 if one of them fails, and 3 if there are too few rows to tell of one.
        """
        summaries = self._summaries() if self.manifest.status in ("complete", "incomplete") else []
        if not any(summary.expectations for summary in summaries):
            return EXIT_CODES[self.manifest.status]
        codes = {exit_code(summary) for summary in summaries}
        whole = len(summaries) == len(self.manifest.cells)
        return FAILED if FAILED in codes else 0 if codes == {0} and whole else UNDECIDED

    def _summaries(self) -> list[Summary]:
        record = SweepFolder.open(self.folder)
        runs = [record.run_of(cell) for cell in self.manifest.cells.values()]
        return [summary for run in runs if run is not None and (summary := run.summary()) is not None]


def sweep(
    overrides: Sequence[str],
    *,
    config_name: str = "config",
    config_dir: str | None = None,
    tags: Sequence[str] = (),
    notify: Notify | None = None,
    watch: Watch | None = None,
) -> SweepResult:
    """Play the cells of a sweep and record them. Complete cells are not repeated.

    Args:
        overrides: Hydra overrides, such as ``["model=fake", "sampling.temperature=0,0.5"]``; the config's section `sweep` adds
            its keys to those that they vary.
        config_name: the primary config, without ``.yaml``.
        config_dir: a folder that is searched before ``./conf`` and the shipped one.
        tags: words to find the sweep and its runs by.
        notify: called with each line for people.
        watch: a context manager around the sweep, given the Sweep: for progress displays.

    Returns:
        The record. Cells that failed are in it; ``result.manifest.status`` says how it went.

    Raises:
        ConfigError, DataError: a cell could not begin; found before anything is sent.
        RecordError, OrchestratorError: the sweep could not begin or continue; finished rows are recorded.
    """
    if isinstance(overrides, str):
        raise ConfigError('overrides are a list: sweep(["model=fake", "sampling.temperature=0,1"])')
    found = checked_tags(tags)
    plan = Plan(overrides, config_name=config_name, config_dir=config_dir)
    return sweep_to_end(Sweep.create(plan, found), notify=notify, watch=watch)


def resume_sweep(
    sweep: str | Path,
    overrides: Sequence[str] = (),
    *,
    runs_dir: str | Path = "runs",
    notify: Notify | None = None,
    watch: Watch | None = None,
) -> SweepResult:
    """Resume a sweep: run its missing cells, and ask the failed rows of the other cells again.

    Args:
        sweep: a sweep folder, or a sweep's name as `load` takes it (``latest``, ``<experiment>/<sweep>``, a prefix).
        overrides: changes of the budget, the limits, the launch or the execution.
        runs_dir: where sweeps are.
        notify: called with each line for people.
        watch: a context manager around the sweep, given the Sweep: for progress displays.

    Returns:
        The record, as `sweep` does.

    Raises:
        RecordError: there is no such sweep, or it is being played.
        ConfigError, DataError, OrchestratorError: as `sweep` does.
    """
    folder = sweep if isinstance(sweep, Path) else find_record(sweep, Path(runs_dir)).path
    return sweep_to_end(Sweep.reopen(folder, overrides), notify=notify, watch=watch)


def sweep_to_end(sweep: Sweep, *, notify: Notify | None = None, watch: Watch | None = None) -> SweepResult:
    """Run the cells that are owed, under the orchestrator that the config names, and finish the record.

    Nothing is started if nothing is owed. Raises as `sweep` does.
    """
    say = notify or silent
    with sitting(sweep, say) as in_loop, watch(sweep) if watch else contextlib.nullcontext():
        if not sweep.settle() and not sweep.stop.requested:
            in_loop(_orchestrated(sweep, say))
    return SweepResult(sweep.folder, sweep.manifest)


async def _orchestrated(sweep: Sweep, notify: Notify) -> None:
    if (orchestrate := orchestrator(sweep.config.execution.orchestrator, ORCHESTRATORS)) is not None:
        await orchestrate(sweep, notify=notify)
    else:
        await sweep.drive(sweep.run_cell)
