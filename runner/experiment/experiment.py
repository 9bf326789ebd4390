"""The stages of a run (plan, launch, ask, kill, summarise) and the run folder that they write."""

from __future__ import annotations

import asyncio
import contextlib
import pkgutil
import time
import warnings
from itertools import compress, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.batch.engine import Stop, ask, plan
from runner.batch.tally import Tally, grouped
from runner.config.roles import adjusted_like, config_hash
from runner.config.schema.model import FakeModel, LocalModel
from runner.errors import (
    BudgetExceeded,
    CacheError,
    DataError,
    EndpointClosedError,
    LMError,
    OstinatoError,
    RecordError,
    first_of,
)
from runner.experiment.drift import adjusted, changes_of, manifest_of, plain, refuse_changed_data, refuse_changed_files
from runner.experiment.expected import Expected
from runner.experiment.files import rooted
from runner.experiment.models import Models
from runner.experiment.named import NamedModels
from runner.experiment.parts import Parts
from runner.experiment.prompts import refuse_by_server
from runner.experiment.recorded import recorded_overrides, unscored
from runner.experiment.result import Result
from runner.experiment.served import names_weights, pin, pin_recorded, refuse_swapped, swapped
from runner.records import RunFolder, Summary
from runner.records.spending import Spending
from runner.secrets import redact
from runner.session.sitting import live
from runner.stats import seeds
from runner.system.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from runner.batch.asker import Slot
    from runner.config.schema import RunConfig
    from runner.experiment.prepared import Prepared
    from runner.lm.lm import LM, Pinned
    from runner.records.folder import Counted
    from runner.records.summary import RunStatus
    from runner.types import Sample

WORKERS = {"dask": "runner.workers.play:on_dask"}
"""The function that plays on workers, by ``execution.workers.kind``; it is given the experiment and what keeps samples."""

_SHOWN = 16  # rows whose prompts say what those of all rows begin with


class Experiment:
    """A run and its folder. The stages are plan, launch, ask, kill and summarise. Made by `create`, `reopen` and `attach`.

    Attributes:
        folder: the run folder, absolute.
        name: the experiment's name.
        overrides: what was given on the command line, without secrets.
        summary: the results, once the run is finished.
        tally: the running totals.
        stop: set to stop asking.
        begun: whether the model has been asked, or is about to be.
        expected: what the run has to reach.
        stopped_early: whether the verdict was certain before all rows were asked.
        page: whether `finish` writes the page of the run.
        owns_store: whether `close` closes the cache; False if it belongs to several experiments.
        nameless: models whose servers are known to name no weights, as in `runner.experiment.served.pin`.
        on_fetch: called with the bytes fetched and the total (None: unknown) while weights are fetched.
    """

    def __init__(self, config: RunConfig, record: RunFolder, overrides: Sequence[str], parts: Parts) -> None:
        self.config = config
        self.record = record
        self.overrides = [redact(override) for override in overrides]
        self.folder = record.path
        self.name = config.name or record.path.parent.name
        self.dataset, self.scorers, self.lm = parts.dataset, parts.scorers, parts.lm
        self.named = NamedModels(config) if parts.named is None else parts.named
        self.parts = parts
        parts.keep(record.path)
        self.asker = parts.asker()
        self.tally = Tally(len(self.dataset) * config.sampling.repeats, repeats=config.sampling.repeats, pass_at=parts.pass_at)
        self.spending = Spending(record)
        self.tally.charge(self.spending.earlier.spent)
        for name, spent in self.spending.earlier.named.items():
            self.tally.charge(spent, name)
        self.asker.keep, self.asker.on_cut = self.spending.keep, self.tally.charge
        self.expected = Expected(config, self.dataset, self.scorers)
        self.asker.check = self.expected.check
        self._result = Result(config, record, self.asker, self.named, self.tally, self.expected)
        self.stopped_early = False
        self.page = self.owns_store = True
        self.nameless: set[tuple[str, str]] | None = None
        self.stop = Stop()
        self.begun = False
        self.problem: OstinatoError | None = None
        self.summary: Summary | None = None
        self.on_fetch: Callable[[int, int | None], None] | None = None
        self._done: AbstractSet[tuple[str, int]] | None = frozenset()  # None: planned
        self._owed = bytearray()
        self._models = Models(config.cache.served, record.path)
        self._unsure: AbstractSet[tuple[str, int]] | None = None
        self._partial = False
        self._launched = False
        self._failed = False
        self._since = time.perf_counter()
        self._wall_before = 0.0

    @classmethod
    def create(
        cls,
        prepared: Prepared,
        overrides: Sequence[str] = (),
        *,
        within: Path | None = None,
        facts: Mapping[str, Any] | None = None,
        partial: bool = False,
    ) -> Experiment:
        """Check everything and make the run folder. Nothing is looked up, started or sent.

        Args:
            prepared: the experiment.
            overrides: the overrides to record.
            within: the folder that the run folder is made in; None: ``<runs_dir>/<name>``.
            facts: more fields for the manifest.
            partial: in replay mode, leave owed what the cache cannot answer; otherwise `plan` raises an error.

        Raises:
            ConfigError, DataError: found before a folder is made.
            RecordError: the folder cannot be written.
        """
        from runner.config.compose import to_yaml

        parts, name = prepared.parts(), prepared.name
        config, in_place = (msgspec.structs.replace(one, name=name) for one in (prepared.config, prepared.in_place))
        digest = config_hash(config)
        place = within or Path(config.runs_dir) / name
        begun = {
            "status": "running",
            "name": name,
            "config_hash": digest,
            "started_at": now(),
            "cwd": str(prepared.cwd or Path.cwd()),
            **manifest_of(config, in_place, parts.dataset),
            "model": {"requested": parts.lm.model, "endpoint": parts.lm.request(prompt="").endpoint, **parts.lm.recorded_form},
            **({"models": models} if (models := parts.named.facts() if parts.named else {}) else {}),
            "seeds": {"rule": seeds.RULE},
            **({"remarks": remarks} if (remarks := parts.remarks(config)) else {}),
            **(facts or {}),
        }
        record = RunFolder.create(
            place.parent,
            place.name,
            digest,
            config=to_yaml(config),
            overrides=to_yaml([redact(override) for override in overrides]),
            manifest=begun,
            latest=within is None,
        )
        record.lock()
        experiment = cls(in_place, record, overrides, parts)
        experiment._partial = partial
        return experiment

    @classmethod
    def reopen(
        cls, folder: Path, overrides: Sequence[str] = (), *, like: RunConfig | None = None, again: Container[str] = ()
    ) -> Experiment:
        """Open the experiment of a run folder, with what it still owes.

        Args:
            folder: the run folder.
            overrides: changes to the groups `ADJUSTABLE`, which leave the answers as they are, such as a larger budget.
            like: a config that these groups are taken from; None: they stay as recorded.
            again: codes of errors; the rows that failed with one of them are asked again. Until a row's new line is in the
                record, its old one counts.

        Raises:
            RecordError: the folder is not a record, or its data or a file has changed since.
            ConfigError, DataError: the config or the data cannot be used any more, or the config was changed.
        """
        record = RunFolder.open(folder)
        record.refuse_foreign("resumed or retried")
        record.lock()
        try:
            return cls._reopened(record, overrides, like, again)
        except BaseException:
            record.close()
            raise

    @classmethod
    def _reopened(cls, record: RunFolder, overrides: Sequence[str], like: RunConfig | None, again: Container[str]) -> Experiment:
        from runner.config.compose import read_run, to_yaml

        manifest = record.manifest()
        config = read_run(record.config_file)
        changes_of(record, config)  # an edited config.yaml is refused before anything is built
        config = adjusted(record, config, overrides)
        if like is not None:
            config = adjusted_like(config, like)
        in_place = rooted(config, manifest)
        refuse_changed_files(record, in_place)
        experiment = cls(in_place, record, recorded_overrides(record), Parts.of(in_place))
        refuse_changed_data(record, experiment.dataset, experiment.asker.adapter)
        experiment.ask_as_recorded(record)
        if changes := changes_of(record, config):
            record.log(f"resumed with {', '.join(changes)}")
            record.write_config(to_yaml(config))
            record.write_manifest({**record.manifest(), "config": plain(config)})
        if summary := record.summary():
            experiment.restore(summary)
        experiment._done = experiment._recount(again)
        tally, budget = experiment.tally, experiment.lm.budget
        if budget is not None:  # it covers all sittings of the run
            for counted in (tally.counted, *tally.counted_named.values()):
                budget.charge(**counted)
        experiment.named.charge(tally.counted_named)
        return experiment

    def _recount(self, again: Container[str]) -> set[tuple[str, int]]:
        """Count the samples of the record, and return the slots that are done: not failures with one of the codes `again`."""
        done: set[tuple[str, int]] = set()
        unjudged: set[int] = set()

        def counting() -> Iterator[Counted]:
            for number, sample, counts in self.record.counted():
                failure = sample.error.code if sample.status in ("error", "refused") and sample.error else None
                if not counts:
                    self.tally.superseded(sample)
                elif failure is None or failure not in again:
                    done.add((sample.id, sample.repeat))
                    yield sample
                elif failure == "scoring":  # the sample has its answer
                    unjudged.add(number)
                else:
                    self.tally.again(sample)

        for one, times in grouped(counting(), self.tally.alike if self.expected.early is None else lambda _: None):
            self.count(one, times)
        answered = {(sample.id, sample.repeat): sample for sample in self.record.samples_at(unjudged)}
        if not self.asker.asks:
            self._score_again(answered)
            return done | answered.keys()
        for sample in answered.values():  # they are judged with the rows that are owed
            self.tally.again(sample)
            unscored(sample).named = None  # the old line has it
        self.asker.answered = answered
        return done

    def plan(self) -> None:
        """Record what the cache can answer, and note what is owed, for `owed`, `due` and `ask`. Only the first call does it.

        Raises:
            CacheError: the cache cannot be used, or it lacks an answer in replay mode.
            RecordError: the record cannot be written, or the server of a resumed run serves other weights than before.
        """
        if self._done is None:
            return
        if self.parts.tools is not None:
            self.parts.tools.open()
        done, self._done = self._done, None
        recorded = self._pin(begun=bool(done))
        if self._asks_first:
            self._unsure = done
            self._owed = bytearray((row.id, repeat) not in done for row, repeat in self._slots())
        else:
            self._owed = plan(self.asker, self._slots(), done, self._keep, stop=self.stop)
        if self.owed and self.config.cache.mode == "replay" and not self._partial:
            row, repeat = next(self.due())
            missing = f"row '{row.id}'" + (f" (repeat {repeat})" if repeat else "")
            raise CacheError(f"replay: the cache has no answer for {self.owed:,} samples, {missing} first; nothing was sent")
        if self.owed:
            refuse_swapped(self.folder, self.config, self.lm, recorded)

    @property
    def owed(self) -> int:
        """Samples that the model has yet to be asked for."""
        return self._owed.count(1)

    def due(self) -> Iterator[Slot]:
        """Yield the slots that need the model, in order."""
        return compress(self._slots(), self._owed)

    def ask_as_recorded(self, record: RunFolder) -> None:
        """Send requests in the form and with the seeds that a record has, whatever is known of the model today."""
        manifest, own = record.manifest(), self.record.manifest()
        self.lm.as_recorded(manifest.get("model", {}))
        self.named.as_recorded(manifest.get("models", {}))
        self.asker.seed_rule = rule = seeds.recorded_rule(manifest)
        if rule != seeds.recorded_rule(own):  # the run plays another one again, and is resumed as it began
            self.record.write_manifest({**own, "seeds": {**own.get("seeds", {}), "rule": rule}})

    @property
    def needs_launch(self) -> bool:
        """Return whether a local model server has to be started before anything can be asked. Workers start their own."""
        return self.config.execution.workers.kind is None and (self._is_served_here or self.named.needs_launch)

    @property
    def _is_served_here(self) -> bool:
        """Return whether the model is local and has something to answer; judges may be all that is still to be asked."""
        return isinstance(self.config.model, LocalModel) and self.asker.asks_model

    async def launch(self) -> dict[str, Any]:
        """Start the servers of local models, unless they run already. Raises LaunchError."""
        began = time.perf_counter()
        model = self.config.model
        if isinstance(model, LocalModel) and self._is_served_here:
            if model.backend == "llamacpp":
                from runner.models import served

                await asyncio.to_thread(served.pull, model.name, progress=self._fetched)
            self._launched = True  # set before the launch: `kill` then ends a server that is still starting
            await asyncio.to_thread(self.lm.launch)
            if self.asker.solving is None or not self.asker.solving.is_code:
                await asyncio.to_thread(self._share_prefix)
        await self.named.launch(self._fetched)
        return {"model": self.lm.model, "api_base": self.lm.kwargs.get("api_base"), "wall_s": time.perf_counter() - began}

    def _share_prefix(self) -> None:
        """Show the model's server some requests of this run, so that what their prompts have in common is evaluated once."""
        step = max(1, -(-len(self.dataset) // _SHOWN))
        requests = []
        for row in islice(self.dataset, 0, None, step):
            with contextlib.suppress(DataError):  # it is reported when the row is asked
                requests.append(self.asker.request(self.asker.adapter.format(row), 0))
        self.lm.provider.share(self.lm, requests)

    async def ask(self) -> dict[str, Any]:
        """Ask what is owed. A worker records each finished sample before it begins the next.

        Returns:
            Counts: ``{"ok", "errors", "owed"}``.

        Raises:
            EndpointClosedError, BudgetExceeded: no further row can be asked; the rest stays owed.
            asyncio.CancelledError: `stop` was requested; requests in flight are finished and recorded.
            RecordError: the record cannot be written.
        """
        self.begun = True
        await asyncio.to_thread(refuse_by_server, self.parts)
        self.tally.started()
        try:
            asked = await self._ask_first(self._unsure) if self._unsure is not None else 0
            self._models.begin(self.tally.models if self.tally.done > asked else ())
            await self._ask_owed()
            if self.lm.pinned is not None:
                await asyncio.to_thread(self._check_weights, self.lm.pinned)
        except ExceptionGroup as group:
            raise first_of(group) from None
        finally:
            self.tally.stopped()
        if self.stop.reason is not None:
            raise self.stop.reason
        if self.stop.requested and not self.stopped_early:
            raise asyncio.CancelledError("stopped on request")
        return {"ok": self.tally.status["ok"], "errors": self.tally.status["error"], "owed": self.tally.owed}

    async def _ask_owed(self) -> None:
        """Ask what is owed: in this process, or on workers."""
        if (kind := self.config.execution.workers.kind) is None:
            await ask(self.asker, self.due(), self._keep, concurrency=self.config.limits.max_concurrency, stop=self.stop)
        else:
            await pkgutil.resolve_name(WORKERS[kind])(self, self._keep)

    def interrupt(self) -> None:
        """Send nothing more. Requests in flight are finished and recorded; rows waiting for a retry or the limiter stay owed."""
        self.stop.request()
        asked = EndpointClosedError("the run was asked to stop", model=self.lm.model)
        for lm in (self.lm, *self.named.lms.values()):
            for gate in (lm.limiter, lm.budget):
                if gate is not None:
                    gate.close(asked)

    async def kill(self, kept: Container[LM] = ()) -> None:
        """Stop the servers that `launch` started, but those of LMs in `kept`. A second call does nothing."""
        await self.named.kill(kept)
        if self._launched:
            self._launched = False
            if self.lm not in kept:
                await asyncio.to_thread(self.lm.kill)

    async def aclose(self) -> None:
        """Close the connections of all models. Call it before the event loop ends."""
        await self.named.aclose()
        await self.lm.aclose()

    def summarise(self) -> Summary:
        """Write the current summary and manifest, and return the summary."""
        tally = self.tally
        answered = tally.status.total() - tally.status["error"]
        status: RunStatus = "incomplete" if tally.owed or tally.status["error"] else "complete"
        if self.stop.requested and self.stop.reason is None and not self.stopped_early and tally.done < tally.rows:
            status = "interrupted"
        elif tally.rows and not answered and not isinstance(self.problem, BudgetExceeded):
            status = "failed"
        problem = str(self.problem) if self.problem else tally.commonest_error if status == "failed" else None
        return self._result.write(
            status,
            problem=redact(problem) if problem else None,
            wall_s=round(self._wall_before + time.perf_counter() - self._since, 3),
            stopped_early=self.stopped_early and bool(tally.owed),
        )

    def count(self, sample: Sample | Counted, times: int = 1) -> None:
        """Count one sample of the record, or some that are alike. With ``expect.stop_early``, stop once the verdict is sure."""
        self.tally.add(sample, times)
        if (early := self.expected.early) is not None:
            early.add(sample)
            if not self.stop.requested and early.decided and self.tally.owed:
                self.stopped_early = True
                self.stop.request()

    def restore(self, before: Summary) -> None:
        """Take over the times of an earlier sitting, which ``samples.jsonl`` does not hold."""
        self._wall_before, self._since = before.wall_s, time.perf_counter()
        self.tally.model_s = before.model_s
        self.asker.clock.seconds = dict(before.scoring_s)

    def record_failure(self, error: OstinatoError) -> bool:
        """Record the error that ended the run. Return True for a refusal by the model or the budget: the summary explains it."""
        self.problem = error
        self._failed = not isinstance(error, LMError | BudgetExceeded)
        return not self._failed

    def finish(self) -> Summary:
        """Summarise, log what went wrong, and close the files.

        Raises:
            RecordError: the summary cannot be written, and nothing else has failed.
        """
        try:
            if self.problem:
                self.record.log(str(self.problem))
            self.summary = self.summarise()
            self.spending.finish()
        except RecordError:
            if not self._failed:
                raise
            self.summary = Summary(run=str(self.folder), name=self.name, model=self.lm.model, status="failed")
        else:
            if self.page:
                report_or_warn(self.folder)
        finally:
            self.close()
        return self.summary

    def close(self) -> None:
        """Close the files."""
        self.parts.close()
        self.spending.close()
        self.record.close()
        self.named.close()
        if self.lm.store and self.owns_store:
            self.lm.store.close()

    def _fetched(self, done: int, total: int | None) -> None:
        """Pass on the progress of a fetch. Raises asyncio.CancelledError once `stop` was requested."""
        if self.stop.requested:
            raise asyncio.CancelledError("stopped on request")
        if self.on_fetch:
            self.on_fetch(done, total)

    def _pin(self, *, begun: bool) -> str | None:
        """Have the endpoint name the weights that the server serves. Return that of a run that has `begun`, as recorded."""
        manifest = self.record.manifest()
        recorded: str | None = manifest.get("model", {}).get("endpoint")
        if begun or names_weights(recorded):
            pin_recorded(self.lm, recorded)
            self.named.pin(manifest.get("models", {}))
            return recorded
        pin(self.config, self.lm, nameless=self.nameless)
        changed: dict[str, Any] = {}
        if self.named.pin(None, self.nameless):
            changed["models"] = self.named.facts()
        if self.lm.pinned is not None:
            changed["model"] = {**manifest["model"], "endpoint": self.lm.pinned.endpoint}
        if changed:
            self.record.write_manifest({**manifest, **changed})
        return None

    @property
    def _asks_first(self) -> bool:
        """Return whether nothing is looked up before one row has been asked, to learn which model answers."""
        store = self.lm.store
        if self.lm.pinned is not None or isinstance(self.config.model, LocalModel | FakeModel):  # its keys say which one it is
            return False
        return self._models.policy != "warn" and store is not None and store.mode in ("read", "rw")

    async def _ask_first(self, done: AbstractSet[tuple[str, int]]) -> int:
        """Ask the first rows to learn which model answers, then record what the cache has of it. Return how many were asked.

        Raises:
            CacheError: ``cache.served=refuse``, and there are answers of another model.
            RecordError: an earlier sitting has answers of another model.
        """
        earlier = set(self.tally.models)
        asked = await self._models.learn(self.asker, self.due(), self._keep, self.stop)
        self._unsure = None
        self._models.refuse_earlier(self.asker, earlier)
        self._owed = await asyncio.to_thread(plan, self.asker, self._slots(), done | asked, self._keep, stop=self.stop)
        if told := self._models.passed_over(self.asker):
            self.record.log(told)
        return len(asked)

    def _check_weights(self, pinned: Pinned) -> None:
        """Warn if the server has changed its weights while it was asked."""
        if told := swapped(self.config, self.lm, pinned.endpoint):
            self._warn(f"{told}\nits answers may be by either; ask again with cache.mode=refresh")

    def _warn(self, told: str) -> None:
        self.record.log(told)
        warnings.warn(told, stacklevel=2)

    def _slots(self) -> Iterator[Slot]:
        repeats = self.config.sampling.repeats
        return ((row, repeat) for row in self.dataset for repeat in range(repeats))

    def _score_again(self, answered: dict[tuple[str, int], Sample]) -> None:
        """Score answers whose scoring failed, by slot. They are not asked again: an answer is never paid for twice."""
        for row, repeat in self._slots() if answered else ():
            if sample := answered.get((row.id, repeat)):
                self.asker.score(unscored(sample), row)
                self._keep([sample])

    def _keep(self, samples: list[Sample]) -> None:
        if samples:
            self.record.append(samples)
            self.spending.recorded(samples)
            for sample in samples:
                self.count(sample)
            if told := self._models.changed(samples):
                self._warn(told)


def report_or_warn(folder: Path, write: Callable[[Path], object] | None = None) -> None:
    """Write the report of a run or a sweep, or warn if that fails: the record is complete without it."""
    from runner.reports import report

    try:
        (write or report)(folder)
    except Exception as error:  # noqa: BLE001 - boundary: a run is not lost for a view of it, whatever the rows hold
        told = f"no report was written: {redact(str(error))}; try again with: ostinato report {folder}"
        warnings.warn(told, stacklevel=2)


def attach(folder: str) -> Experiment:
    """Return the experiment of this folder: the one that runs in this process, or else one reopened from its record."""
    if (experiment := live(folder, Experiment)) is None:
        experiment = Experiment.reopen(Path(folder))
        experiment.plan()
    return experiment
