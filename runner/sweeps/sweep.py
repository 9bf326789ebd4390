"""A sweep being played: which cells there are, what each has come to, and playing one. Knows nothing of who calls it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import io
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.analysis.cells import ranked
from runner.analysis.export import Format, export
from runner.analysis.load import load
from runner.batch.engine import Stop
from runner.config.cells import UNVARIED
from runner.config.roles import ADJUSTABLE, group_of
from runner.errors import BudgetExceeded, ConfigError, OstinatoError, RecordError
from runner.experiment.experiment import Experiment, first_of, report_or_warn
from runner.experiment.run import FAILURES
from runner.experiment.train_first import settled, to_be_asked, train_first
from runner.records import SweepFolder
from runner.records.sweep import CELLS, CellRecord, SweepManifest
from runner.secrets import redact
from runner.session.sitting import live, recorded
from runner.sweeps.plan import Plan
from runner.sweeps.shared import Shared
from runner.system.clock import now
from runner.wording.numbers import dollars

if TYPE_CHECKING:
    from runner.config.schema import RunConfig
    from runner.experiment.prepared import Prepared
    from runner.records.summary import RunStatus

RunCell = Callable[[str], Awaitable[None]]

_SLICE_S = 0.5

_PASSED_ON = frozenset(ADJUSTABLE) - UNVARIED
"""Groups whose overrides a resumed sweep passes on to its cells. The budget and the execution are the sweep's own."""

TABLES: tuple[Format, ...] = ("csv", "parquet")
"""The forms in which a sweep's folder has its table."""


class _Owes(Exception):  # noqa: N818 - a signal to stop looking, not an error
    """A cell needs the model."""


class _Stopped(Exception):  # noqa: N818 - likewise
    """The sweep was asked to stop."""


class Progress(NamedTuple):
    """A sweep at this moment; `str` of it tells of the cells that are being played.

    Attributes:
        cells: those known so far.
        ended: those of them that were played, now or earlier.
        done: samples of the cells that are being played which need no more asking, of `rows`.
        errors: samples of these that failed.
        cost_usd: what these have cost so far.
    """

    cells: int
    ended: int
    done: int
    rows: int
    errors: int
    cost_usd: float

    def __str__(self) -> str:
        spent = f", {dollars(self.cost_usd)}" if self.cost_usd else ""
        return f"{self.done:,}/{self.rows:,} rows of the cells at hand, {self.errors:,} errors{spent}"


class Sweep:
    """A sweep folder being played. Made by `create` and `reopen`.

    Attributes:
        folder: the sweep's folder, absolute.
        name: the experiment's name.
        overrides: what was given on the command line; free of secrets.
        manifest: what the sweep consists of, and how far it has come.
        stop: set to stop.
        running: the experiments of the cells that are being played, by cell id.
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
        self._writing = threading.Lock()
        self._training = threading.Lock()
        self._expected: dict[str, RunConfig] = {}
        self.shared = Shared(plan.config)
        record.lock()
        try:
            self._open()
        except BaseException:
            record.close()
            raise

    @classmethod
    def create(cls, plan: Plan) -> Sweep:
        """Make the sweep's folder, or go on in the one that has the same base and varies the same keys.

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
        return cls(plan, record)

    @classmethod
    def reopen(cls, folder: Path, overrides: Sequence[str] = ()) -> Sweep:
        """The sweep of a folder, to go on with.

        Args:
            folder: the sweep's folder.
            overrides: changes of the budget, the limits, the launch or the execution.

        Raises:
            RecordError: the folder is no sweep, or what it was made from has changed.
            ConfigError: overrides of something else.
        """
        record = SweepFolder.open(folder)
        if other := [override for override in overrides if group_of(override) not in ADJUSTABLE]:
            raise ConfigError(
                f"'{redact(other[0])}': a sweep goes on as it began; only {', '.join(ADJUSTABLE)} may change. To play more "
                "cells, run it with more values: `ostinato run -m ...` goes on in the same folder"
            )
        manifest = record.read()
        if Path.cwd() != Path(manifest.cwd):
            raise RecordError(f"{folder}: the sweep was begun in {manifest.cwd}, where its configs are; go on with it there")
        asked = record.asked()
        given = {override.partition("=")[0]: override for override in [*asked["overrides"], *overrides]}
        plan = Plan(list(given.values()), config_name=asked["config_name"], config_dir=asked["config_dir"])
        if plan.digest != manifest.digest:
            raise RecordError(
                f"{folder}: the configs or the data have changed since this sweep began; put them back, or begin a new one "
                "with `ostinato run -m`"
            )
        return cls(plan, record)

    # --- playing

    def settle(self) -> bool:
        """Record what needs no model, in the order in which it is proposed. Returns whether that was all of it."""
        try:
            self.plan.propose(self._from_records, folder=self.folder)
        except (_Owes, _Stopped):
            return False
        return True

    async def drive(self, run: RunCell) -> None:
        """Have the sweeper propose cells, and `run` those that are not complete, a few at a time.

        Raises:
            OstinatoError: what has stopped the sweep: a spent budget, a failed cell with `fail_fast`.
            asyncio.CancelledError: it was asked to stop.
        """
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
            await self.shared.aclose()
        if self.problem is not None:
            raise self.problem
        if self.stop.requested:
            raise asyncio.CancelledError("stopped on request")

    async def run_cell(self, key: str) -> None:
        """Play one cell to its end and note how that went.

        Raises:
            OstinatoError: the cell has failed: nothing was answered.
            asyncio.CancelledError: it was asked to stop.
        """
        problem: OstinatoError | None = None
        try:
            experiment = self._begun.pop(key) if key in self._begun else await self._whole(key)
            self.running[key] = experiment
            with recorded(experiment):
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
        """Begin a cell in a thread. When this is cancelled the thread is waited for, and what it has made is closed."""
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
        """Whether the model of a cell has been asked."""
        return any(experiment.begun for experiment in list(self.running.values()))

    def interrupt(self) -> None:
        """Begin no cell and send nothing more; what is in flight is finished and recorded."""
        self.stop.request()
        for experiment in list(self.running.values()):
            experiment.interrupt()

    def label(self, key: str) -> str:
        """The values of a cell for people, in one line; free of secrets."""
        return redact(", ".join(f"{name}={value}" for name, value in self.manifest.cells[key].values.items()))

    def ranked(self) -> list[dict[str, Any]]:
        """One tidy row a cell as things stand now, best first."""
        return ranked(self.record)

    def progress(self) -> Progress:
        """The numbers of the moment. Called by the display, from a thread of its own."""
        tallies = [experiment.tally for experiment in list(self.running.values())]
        statuses = [cell.status for cell in list(self.manifest.cells.values())]
        return Progress(
            cells=len(statuses),
            ended=sum(status not in ("pending", "running") for status in statuses),
            done=sum(tally.done for tally in tallies),
            rows=sum(tally.rows for tally in tallies),
            errors=sum(tally.status["error"] for tally in tallies),
            cost_usd=sum(tally.cost_usd or 0.0 for tally in tallies),
        )

    def summarise(self) -> SweepManifest:
        """Write the manifest and the tables as things stand now, and return the manifest."""
        self.manifest.status = self.status
        self._save()
        told = load(self.folder)
        for form in TABLES:
            content = io.BytesIO()
            try:
                export(told, form, content)
            except ConfigError as error:  # Parquet takes a library that not everybody has
                self.record.log(f"no table.{form} was written: {error}")
            else:
                self.record.write_table(f"table.{form}", content.getvalue())
        return self.manifest

    def record_failure(self, error: OstinatoError) -> bool:
        """Return whether the manifest tells all of this error: then it is the one that has stopped the sweep."""
        return error is self.problem

    def finish(self) -> SweepManifest:
        """Summarise, and let go of the folder. Raises RecordError when the summary cannot be written."""
        self.manifest.ended_at = now()
        self.manifest.problem = redact(str(self.problem)) if self.problem else None
        try:
            for key, experiment in self._begun.items():  # nobody came to play it
                experiment.stop.request()
                experiment.finish()
                self.running[key] = experiment
                self._ended(key, None)
            if self.problem is not None:
                self.record.log(str(self.problem))
            self.summarise()
            report_or_warn(self.folder)
        finally:
            self.record.close()
        return self.manifest

    @property
    def status(self) -> RunStatus:
        """How the sweep as a whole stands."""
        statuses = {cell.status for cell in self.manifest.cells.values()}
        if statuses == {"complete"}:
            return "complete"
        if self.stop.requested and self.problem is None:
            return "interrupted"
        failed = statuses == {"failed"} or (self.problem is not None and not isinstance(self.problem, BudgetExceeded))
        return "failed" if failed else "incomplete"

    # --- inside

    def _open(self) -> None:
        """Count what was spent, and note the cells there are."""
        self.manifest = self.record.read()
        self.record.drop_unnamed(self.manifest.cells.values())
        cells = {key: cell for key, cell in self.manifest.cells.items() if cell.run is not None}
        cells |= {key: cells.get(key) or CellRecord(values=cell.values) for key, cell in self.plan.cells.items()}
        self.manifest.cells = cells
        self.manifest.status, self.manifest.ended_at = "running", None
        self.manifest.keys, self.manifest.direction = self.plan.keys, self.section.direction
        self.manifest.primary = self.plan.primary
        self.shared.charge(run for cell in cells.values() if (run := self.record.run_of(cell)) is not None)
        self.record.point_latest()
        self.record.write_asked(self.plan.as_yaml())
        self._save()

    def _take(self, jobs: Sequence[Sequence[str]]) -> list[str]:
        ids = self.plan.take(jobs)
        with self._writing:
            for key in ids:
                self.manifest.cells.setdefault(key, CellRecord(values=self.plan.cells[key].values))
        return ids

    def _save(self) -> None:
        """Write the manifest; cells begin and end in several threads."""
        with self._writing:
            self.record.write(self.manifest)

    def _due(self, ids: Iterable[str]) -> list[str]:
        """Those that are not complete, each once."""
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
        """Play these cells, so many at a time as the section says."""
        self._batch = asyncio.current_task()
        stream = iter(self._due(ids))

        async def work() -> None:
            for key in stream:
                if self.stop.requested:
                    return
                with contextlib.suppress(OstinatoError):  # it is in the manifest; other cells go on
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
            await experiment.lm.aclose()

    def _owes_training(self, key: str) -> bool:
        return self.manifest.cells[key].run is None and settled(self.plan.prepared[key]) is None

    def _begin(self, key: str) -> Experiment:
        """The experiment of a cell, in its run folder, with what the cache can answer recorded already."""
        cell = self.manifest.cells[key]
        if (run := self.record.run_of(cell)) is not None:
            experiment = Experiment.reopen(run.path, self._again, again=FAILURES)
        else:
            varied = [f"{name}={value}" for name, value in cell.values.items()]
            prepared = self._trained(key)
            experiment = Experiment.create(prepared, [*self.overrides, *varied], within=self.folder / CELLS)
            cell.run = f"{CELLS}/{experiment.folder.name}"
        cell.status, cell.problem = "running", None
        self._save()
        self.running[key] = experiment
        if self.stop.requested:
            experiment.stop.request()
        try:
            experiment.plan()
        except OstinatoError as error:
            experiment.record_failure(error)
            experiment.finish()
            raise
        return experiment

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
        """Note how a cell has ended."""
        cell = self.manifest.cells[key]
        experiment = self.running.pop(key, None)
        summary = experiment.summary if experiment else None
        cell.status = summary.status if summary else "failed" if problem else "interrupted"
        told = str(problem) if problem else summary.problem if summary else None
        cell.problem = redact(told) if told else None
        self._save()
        if isinstance(problem, BudgetExceeded):
            self._halt(problem)
        elif cell.status == "failed" and self.section.fail_fast:
            self._halt(OstinatoError(f"cell {key} ({self.label(key)}) failed, and fail_fast is set: {cell.problem}"))

    def _halt(self, problem: OstinatoError) -> None:
        if not self.stop.requested:
            self.problem = problem
            self.interrupt()

    def _ranks(self, ids: Iterable[str]) -> list[float | None]:
        """What each cell is ranked by; None for one that has failed or has no such score."""
        ranks: list[float | None] = []
        for key in ids:
            run = self.record.run_of(self.manifest.cells[key])
            summary = run.summary() if run else None
            score = summary.scores.get(self.manifest.primary or "") if summary else None
            ranks.append(score.mean if score else None)
        return ranks


def attach_sweep(folder: str) -> Sweep:
    """The sweep of this folder: the one that is live in this process, else re-opened from its record."""
    return live(folder, Sweep) or Sweep.reopen(Path(folder))
