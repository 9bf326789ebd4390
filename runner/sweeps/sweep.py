"""A sweep and its folder: its cells, their results, and how one of them is run."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.analysis.cells import ranked
from runner.batch.engine import Stop
from runner.config.cells import UNVARIED
from runner.config.roles import ADJUSTABLE, group_of, is_adjustable
from runner.errors import BudgetExceeded, ConfigError, OstinatoError, RecordError, first_of
from runner.experiment.experiment import Experiment, report_or_warn
from runner.experiment.run import FAILURES
from runner.experiment.train_first import settled, to_be_asked, train_first
from runner.records import SweepFolder
from runner.records.environment import environment
from runner.records.sweep import CELLS, CellRecord, SweepManifest
from runner.reports.write import report_cells
from runner.secrets import redact
from runner.session.sitting import live, recorded, recorded_aside
from runner.sweeps.ending import compare_weights, write_tables
from runner.sweeps.plan import Plan
from runner.sweeps.progress import Progress
from runner.sweeps.saved import Saved
from runner.sweeps.shared import Shared
from runner.system.clock import now
from runner.workers.play import sharing

if TYPE_CHECKING:
    from runner.config.schema import RunConfig
    from runner.experiment.prepared import Prepared
    from runner.records.summary import RunStatus

RunCell = Callable[[str], Awaitable[None]]

_SLICE_S = 0.5

_PASSED_ON = frozenset(ADJUSTABLE) - UNVARIED
"""Groups whose overrides a resumed sweep passes on to its cells. The budget and the execution are the sweep's own."""


class _Owes(Exception):  # noqa: N818 - a signal to stop looking, not an error
    """A cell needs the model."""


class _Stopped(Exception):  # noqa: N818 - likewise
    """The sweep was asked to stop."""


class Sweep:
    """A sweep and its folder. Made by `create` and `reopen`.

    Attributes:
        folder: the sweep's folder, absolute.
        name: the experiment's name.
        overrides: what was given on the command line, without secrets.
        manifest: the cells of the sweep, and its progress.
        stop: set to stop.
        running: the experiments of the running cells, by cell id.
    """

    def __init__(self, plan: Plan, record: SweepFolder) -> None:
        self.plan = plan
        self.config = plan.config
        self.section = plan.section
        self.record = record
        self.folder = record.path
        self.name = plan.name
        self.overrides = [redact(override) for override in plan.overrides]
        self.manifest: SweepManifest
        self.stop = Stop()
        self.problem: OstinatoError | None = None
        self.running: dict[str, Experiment] = {}
        self._begun: dict[str, Experiment] = {}
        self._batch: asyncio.Task[Any] | None = None
        self._again = [override for override in plan.asked.fixed if group_of(override) in _PASSED_ON]
        self._training = threading.Lock()
        self._expected: dict[str, RunConfig] = {}
        self._named = False
        self.shared = Shared(plan.config)
        record.lock()
        try:
            self._open()
        except BaseException:
            record.close()
            raise

    @classmethod
    def create(cls, plan: Plan, tags: Sequence[str] = ()) -> Sweep:
        """Make the sweep's folder, or resume in the one with the same base config and varied keys.

        Args:
            plan: what is swept.
            tags: words to find the sweep and its runs by; they are added to those that it has.

        Raises:
            RecordError: the folder cannot be written, or is being played.
        """
        digest = plan.digest
        record = SweepFolder.find(Path(plan.config.runs_dir), plan.name, digest)
        if record is None:
            manifest = SweepManifest(
                name=plan.name,
                status="running",
                digest=digest,
                sweeper=plan.sweeper,
                keys=plan.keys,
                primary=plan.primary,
                direction=plan.section.direction,
                started_at=now(),
                cwd=str(Path.cwd()),
            )
            record = SweepFolder.create(Path(plan.config.runs_dir), manifest, asked=plan.as_yaml())
        sweep = cls(plan, record)
        sweep.manifest.tags = list(dict.fromkeys([*sweep.manifest.tags, *tags]))
        return sweep

    @classmethod
    def reopen(cls, folder: Path, overrides: Sequence[str] = ()) -> Sweep:
        """Open the sweep of a folder to resume it.

        Args:
            folder: the sweep's folder.
            overrides: changes of the budget, the limits, the launch or the execution.

        Raises:
            RecordError: the folder is not a sweep, or its inputs have changed.
            ConfigError: an override of another group.
        """
        record = SweepFolder.open(folder)
        if other := [override for override in overrides if not is_adjustable(override)]:
            raise ConfigError(
                f"'{redact(other[0])}': a resumed sweep keeps its config; only {', '.join(ADJUSTABLE)} may change. To play more "
                "cells, run it with more values: `ostinato run -m ...` continues in the same folder"
            )
        manifest = record.read()
        if Path.cwd() != Path(manifest.cwd):
            raise RecordError(f"{folder}: the sweep was begun in {manifest.cwd}, where its configs are; resume it there")
        asked = record.asked()
        given = {override.partition("=")[0]: override for override in [*asked["overrides"], *overrides]}
        plan = Plan(list(given.values()), config_name=asked["config_name"], config_dir=asked["config_dir"])
        if plan.digest != manifest.digest:
            raise RecordError(
                f"{folder}: the configs or the data have changed since this sweep began; put them back, or start a new one "
                "with `ostinato run -m`"
            )
        return cls(plan, record)

    # --- running

    def settle(self) -> bool:
        """Record the cells that need no model, in the order of the proposals. Return whether these were all cells."""
        try:
            self.plan.propose(self._from_records, folder=self.folder)
        except (_Owes, _Stopped):
            return False
        return True

    async def drive(self, run: RunCell) -> None:
        """Have the sweeper propose cells, and `run` the incomplete ones, a few at a time.

        Raises:
            OstinatoError: the sweep was stopped by a spent budget, or by a failed cell with `fail_fast`.
            asyncio.CancelledError: `stop` was requested.
        """
        async with sharing(self.config.execution.workers):
            await self._drive(run)

    async def _drive(self, run: RunCell) -> None:
        loop = asyncio.get_running_loop()

        def launch(jobs: Sequence[Sequence[str]]) -> list[float | None]:
            ids = self._take(jobs)
            if not self.stop.requested:
                asyncio.run_coroutine_threadsafe(self._run_batch(ids, run), loop).result()
            if self.stop.requested:
                raise _Stopped
            return self._ranks(ids)

        if self.plan.is_grid:
            self._expected = {key: to_be_asked(self.plan.prepared[key]).config for key in self._due(self.plan.cells)}
            self.shared.expect(self._expected.values())
        proposing = asyncio.ensure_future(asyncio.to_thread(self.plan.propose, launch, folder=self.folder))
        keeping = asyncio.create_task(self._saved.keep())
        try:
            await asyncio.shield(proposing)
        except _Stopped:
            pass
        except ExceptionGroup as group:
            raise first_of(group) from None
        except asyncio.CancelledError:
            self.stop.request()
            if self._batch is not None:
                self._batch.cancel()
            with contextlib.suppress(_Stopped, concurrent.futures.CancelledError):
                await proposing
            raise
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)  # whoever writes next meets its error
            await self.shared.aclose()
        if self.problem is not None:
            raise self.problem
        if self.stop.requested:
            raise asyncio.CancelledError("stopped on request")

    async def run_cell(self, key: str) -> None:
        """Run one cell to its end and record its status.

        Raises:
            OstinatoError: the cell has failed because nothing was answered.
            asyncio.CancelledError: `stop` was requested.
        """
        problem: OstinatoError | None = None
        try:
            experiment = self._begun.pop(key) if key in self._begun else await self._whole(key)
            self.running[key] = experiment
            async with recorded_aside(experiment):
                if experiment.owed:
                    await self._ask(experiment)
            problem = experiment.problem
        except OstinatoError as error:
            problem = error
        finally:
            self._ended(key, problem)
            await self.shared.ended(self._expected.get(key, self.plan.cells[key].config))
        cell = self.manifest.cells[key]
        if cell.status == "failed":
            raise OstinatoError(cell.problem or "nothing was answered")

    async def _whole(self, key: str) -> Experiment:
        """Begin a cell in a thread. If this is cancelled, wait for the thread and close what it has made."""
        beginning = asyncio.ensure_future(asyncio.to_thread(self._begin, key))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            self.stop.request()
            with contextlib.suppress(OstinatoError, asyncio.CancelledError), recorded(await beginning):
                pass
            raise

    @property
    def begun(self) -> bool:
        """Return whether the model of a cell has been asked."""
        return any(experiment.begun for experiment in list(self.running.values()))

    def interrupt(self) -> None:
        """Begin no cell and send nothing more. Requests in flight are finished and recorded."""
        self.stop.request()
        for experiment in list(self.running.values()):
            experiment.interrupt()

    def label(self, key: str) -> str:
        """Return the values of a cell for people, in one line without secrets."""
        return redact(", ".join(f"{name}={value}" for name, value in self.manifest.cells[key].values.items()))

    def ranked(self) -> list[dict[str, Any]]:
        """Return one tidy row per cell as it is now, best first."""
        self._saved.write()  # the last cells to end may not be written yet
        return ranked(self.record)

    def progress(self) -> Progress:
        """Return the current numbers. The display calls this from its own thread."""
        tallies = [experiment.tally for experiment in list(self.running.values())]
        return Progress.of([cell.status for cell in list(self.manifest.cells.values())], tallies)

    def summarise(self) -> SweepManifest:
        """Write the current manifest and tables, and return the manifest."""
        self.manifest.status = self.status
        self._saved.write()
        write_tables(self.record)
        return self.manifest

    def record_failure(self, error: OstinatoError) -> bool:
        """Return whether the manifest explains this error fully, as it does for the error that stopped the sweep."""
        return error is self.problem

    def finish(self) -> SweepManifest:
        """Summarise, and close the folder. Raises RecordError if the summary cannot be written."""
        self.manifest.ended_at = now()
        self.manifest.problem = redact(str(self.problem)) if self.problem else None
        try:
            for key, experiment in self._begun.items():  # it was begun and never run
                experiment.stop.request()
                experiment.finish()
                self.running[key] = experiment
                self._ended(key, None)
            if self.problem is not None:
                self.record.log(str(self.problem))
            self.summarise()
            if self._named:
                compare_weights(self.record, self.manifest.cells.values())
            report_or_warn(self.folder, report_cells)
        finally:
            self.shared.close()
            self.record.close()
        return self.manifest

    @property
    def status(self) -> RunStatus:
        """The status of the whole sweep."""
        statuses = {cell.status for cell in self.manifest.cells.values()}
        if statuses == {"complete"}:
            return "complete"
        if self.stop.requested and self.problem is None:
            return "interrupted"
        failed = statuses == {"failed"} or (self.problem is not None and not isinstance(self.problem, BudgetExceeded))
        return "failed" if failed else "incomplete"

    # --- inside

    def _open(self) -> None:
        """Charge what was spent, and record the cells."""
        self.manifest = self.record.read()
        self._saved = Saved(self.record, self.manifest)
        self.record.name_runs(self.manifest.cells)
        self.record.forget_lost(self.manifest.cells.values())
        cells = {key: cell for key, cell in self.manifest.cells.items() if cell.run is not None}
        cells |= {key: cells.get(key) or CellRecord(values=cell.values) for key, cell in self.plan.cells.items()}
        self.manifest.cells = cells
        self.manifest.status, self.manifest.ended_at = "running", None
        self.manifest.keys, self.manifest.direction = self.plan.keys, self.section.direction
        self.manifest.primary = self.plan.primary
        self.shared.charge(run for cell in cells.values() if (run := self.record.run_of(cell)) is not None)
        self.record.point_latest()
        self.record.write_asked(self.plan.as_yaml())
        self._saved.write()

    def _take(self, jobs: Sequence[Sequence[str]]) -> list[str]:
        ids = self.plan.take(jobs)
        self._saved.add({key: self.plan.cells[key].values for key in ids})
        return ids

    def _due(self, ids: Iterable[str]) -> list[str]:
        """Return the incomplete cells among `ids`, each once."""
        return [key for key in dict.fromkeys(ids) if self.manifest.cells[key].status != "complete"]

    def _from_records(self, jobs: Sequence[Sequence[str]]) -> list[float | None]:
        ids = self._take(jobs)
        for key in self._due(ids):
            if self.stop.requested:
                raise _Stopped
            if self._owes_training(key):
                raise _Owes
            try:
                experiment = self._begin(key)
            except OstinatoError as error:
                self._ended(key, error)
                continue
            if experiment.owed:
                self._begun[key] = self.running.pop(key)
                raise _Owes
            with recorded(experiment):
                pass
            self._ended(key, None)
        return self._ranks(ids)

    async def _run_batch(self, ids: Sequence[str], run: RunCell) -> None:
        """Run these cells, as many at a time as the section `sweep` says."""
        self._batch = asyncio.current_task()
        stream = iter(self._due(ids))

        async def work() -> None:
            for key in stream:
                if self.stop.requested:
                    return
                with contextlib.suppress(OstinatoError):  # the manifest tells it; other cells continue
                    await run(key)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.section.concurrency):
                group.create_task(work())

    async def _ask(self, experiment: Experiment) -> None:
        self.shared.lend(experiment)
        try:
            if self.stop.requested:
                experiment.interrupt()
            elif experiment.needs_launch:
                await self.shared.launch(experiment)
            await experiment.ask()
        except asyncio.CancelledError:
            experiment.stop.request()
            raise
        finally:
            await self.shared.release(experiment)

    def _owes_training(self, key: str) -> bool:
        return self.manifest.cells[key].run is None and settled(self.plan.prepared[key]) is None

    def _begin(self, key: str) -> Experiment:
        """Make or reopen the experiment of a cell, and record what the cache can answer."""
        cell = self.manifest.cells[key]
        if (run := self.record.run_of(cell)) is not None:
            experiment = Experiment.reopen(run.path, self._again, again=FAILURES)
        else:
            varied = [f"{name}={value}" for name, value in cell.values.items()]
            prepared = self._trained(key)
            facts: dict[str, Any] = {"cell": key, "environment": self._environment}  # git costs more than a small cell
            if self.manifest.tags:
                facts["tags"] = self.manifest.tags
            experiment = Experiment.create(prepared, [*self.overrides, *varied], within=self.folder / CELLS, facts=facts)
            cell.run = f"{CELLS}/{experiment.folder.name}"
        self.shared.lend_store(experiment)
        experiment.page = False  # the pages of all cells are made at the end, in one go
        (experiment.folder / "report.html").unlink(missing_ok=True)
        cell.status, cell.problem = "running", None
        self._saved.changed()
        self.running[key] = experiment
        if self.stop.requested:
            experiment.stop.request()
        try:
            experiment.plan()
        except OstinatoError as error:
            experiment.record_failure(error)
            experiment.finish()
            raise
        self._named = self._named or experiment.lm.pinned is not None
        return experiment

    @functools.cached_property
    def _environment(self) -> dict[str, Any]:
        return environment()

    def _trained(self, key: str) -> Prepared:
        """Return a cell asking the model that it trains; one training runs at a time. Raises as `train_first`."""
        prepared = self.plan.prepared[key]
        if prepared.config.finetune is None:
            return prepared
        while not self._training.acquire(timeout=_SLICE_S):
            if self.stop.requested:
                raise asyncio.CancelledError("stopped on request")
        try:
            return train_first(prepared, self.record.log, stop=lambda: self.stop.requested)
        finally:
            self._training.release()

    def _ended(self, key: str, problem: OstinatoError | None) -> None:
        """Record how a cell has ended."""
        cell = self.manifest.cells[key]
        experiment = self.running.pop(key, None)
        summary = experiment.summary if experiment else None
        cell.status = summary.status if summary else "failed" if problem else "interrupted"
        told = str(problem) if problem else summary.problem if summary else None
        cell.problem = redact(told) if told else None
        self._saved.changed()
        if isinstance(problem, BudgetExceeded):
            self._halt(problem)
        elif cell.status == "failed" and self.section.fail_fast:
            self._halt(OstinatoError(f"cell {key} ({self.label(key)}) failed, and fail_fast is set: {cell.problem}"))

    def _halt(self, problem: OstinatoError) -> None:
        if not self.stop.requested:
            self.problem = problem
            self.interrupt()

    def _ranks(self, ids: Iterable[str]) -> list[float | None]:
        """Return the score of each cell; None if it has failed, has no such score, or has scored too few samples to be ranked."""
        ranks: list[float | None] = []
        for key in ids:
            run = self.record.run_of(self.manifest.cells[key])
            summary = run.summary() if run else None
            score = summary.scores.get(self.manifest.primary or "") if summary and summary.is_ranked else None
            ranks.append(score.mean if score else None)
        return ranks


def attach_sweep(folder: str) -> Sweep:
    """Return the sweep of this folder: the one that runs in this process, or else one reopened from its record."""
    return live(folder, Sweep) or Sweep.reopen(Path(folder))
