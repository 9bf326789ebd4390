"""A pipeline and its folder: baseline, train, launch, evaluate, compare, register.

A stage is recorded under a hash of all its inputs, and is not repeated while that hash stays the same. So finished stages are
never repeated, even if the pipeline was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runner import build
from runner.analysis.compare import compare
from runner.analysis.load import load
from runner.batch.engine import Stop
from runner.config.roles import config_hash
from runner.errors import FinetuneError, OstinatoError, RecordError, StageError
from runner.experiment.columns import values_of
from runner.experiment.experiment import Experiment
from runner.experiment.run import FAILURES, launch_and_ask
from runner.experiment.train_first import asking, followed, trained_model, untrained
from runner.finetune.jobs.status import TrainingStatus
from runner.models import aliases
from runner.pipelines.begin import keys_of, located, metric_of
from runner.pipelines.gate import bound_of, exceeds, plain, turned
from runner.records.environment import environment
from runner.records.pipeline import PipelineFolder, PipelineManifest, PipelineStatus, StageRecord
from runner.secrets import redact
from runner.session.loop import Notify, silent
from runner.session.sitting import live, recorded
from runner.system.clock import now
from runner.wording.statuses import ADVICE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from runner.config.schema import RunConfig
    from runner.experiment.prepared import Prepared
    from runner.lm.lm import LM

STAGES = ("data", "validate", "baseline", "train", "launch", "tuned", "compare", "register", "kill")

Outcome = Literal["done", "skipped", "failed"]


class Pipeline:
    """A pipeline and its folder. Made by `create`.

    Attributes:
        folder: the pipeline's folder, absolute.
        name: the experiment's name.
        overrides: what was given on the command line, without secrets.
        manifest: its stages, and its progress.
        stop: set to stop.
        outcomes: the outcome of each stage in this sitting, and the seconds it took.
        watch: a context manager around each run, given its Experiment.
        notify: called with each line for people.
    """

    def __init__(self, prepared: Prepared, begun: RunConfig, record: PipelineFolder, overrides: Sequence[str]) -> None:
        self.prepared = prepared
        self.config = prepared.config
        self.training = prepared.training
        self.record = record
        self.folder = record.path
        self.manifest = record.read()
        self.name = self.manifest.name
        self.overrides = [redact(override) for override in overrides]
        self.keys = keys_of(prepared, begun)
        self.stop = Stop()
        self.problem: OstinatoError | None = None
        self.outcomes: dict[str, tuple[Outcome, float]] = {}
        self.watch: Callable[[Experiment], AbstractContextManager[Any]] | None = None
        self.notify: Notify = silent
        self._running: Experiment | None = None
        self._served: LM | None = None

    @classmethod
    def create(cls, config: RunConfig, overrides: Sequence[str] = ()) -> Pipeline:
        """Check everything, and make the folder or find the one with the same inputs. Nothing is begun or sent.

        Raises:
            ConfigError: the config does not say what to train, or has no score to compare.
            DataError: the training rows are wrong, or contain questions of the evaluation.
            RecordError: the folder cannot be written, or is being played.
        """
        from runner.config.compose import to_yaml

        prepared, begun, record = located(config)
        if record is None:
            learned = prepared.config.finetune
            manifest = PipelineManifest(
                name=begun.name or "",
                digest=config_hash(begun),
                status="running",
                started_at=now(),
                cwd=str(Path.cwd()),
                source=learned.data.from_run if learned else None,
                overrides=[redact(override) for override in overrides],
                environment=environment(),
            )
            record = PipelineFolder.create(Path(begun.runs_dir), manifest, config=to_yaml(begun))
        record.lock()
        try:
            pipeline = cls(prepared, begun, record, overrides)
            pipeline.manifest.status, pipeline.manifest.ended_at = "running", None
            pipeline._save()
        except BaseException:
            record.close()
            raise
        return pipeline

    @property
    def owed(self) -> list[str]:
        """Stages that are not done."""
        return [name for name in STAGES if not self._settled(name)]

    async def stage(self, name: str) -> None:
        """Run a stage, unless it is done. Its outcome is recorded, whatever happens.

        Raises:
            OstinatoError: the stage has failed.
            asyncio.CancelledError: `stop` was requested.
        """
        if self._settled(name):
            self.outcomes[name] = "skipped", 0.0
            return
        if self.stop.requested:
            raise asyncio.CancelledError("stopped on request")
        stage = self.manifest.stages.get(name)
        if stage is None or stage.key != self.keys[name]:
            stage = self.manifest.stages[name] = StageRecord(key=self.keys[name])
        stage.status, stage.problem, stage.started_at = "running", None, now()
        self._save()
        began = time.perf_counter()
        do: Callable[[StageRecord], Awaitable[dict[str, Any]]] = getattr(self, f"_{name}")
        try:
            stage.result = await do(stage)
            stage.status = "done"
        except OstinatoError as error:
            stage.status, stage.problem = "failed", redact(str(error))
            raise
        except BaseException:
            stage.status = "interrupted"
            raise
        finally:
            took = time.perf_counter() - began
            stage.wall_s = round(stage.wall_s + took, 3)
            self.outcomes[name] = "done" if stage.status == "done" else "failed", round(took, 3)
            self._save()

    @property
    def begun(self) -> bool:
        """Return whether a run is being asked now. A training need not be waited for."""
        return self._running is not None and self._running.begun

    def interrupt(self) -> None:
        """Begin nothing more. Rows in flight are finished and kept; a training continues on its own."""
        self.stop.request()
        if self._running is not None:
            self._running.interrupt()

    async def aclose(self) -> None:
        """Stop the server of the stage launch, if the stage kill was not reached."""
        if (served := self._served) is not None:
            self._served = None
            await asyncio.to_thread(served.kill)

    def record_failure(self, error: OstinatoError) -> bool:
        """Record the error that ended the pipeline. Return True: the result explains it fully."""
        self.problem = error
        return True

    def finish(self) -> PipelineManifest:
        """Write the final status, close the folder, and return the manifest."""
        self.manifest.status = self._status()
        self.manifest.ended_at = now()
        try:
            if self.problem is not None:
                self.record.log(str(self.problem))
            self._save()
        finally:
            self.record.close()
        return self.manifest

    def result(self, name: str) -> dict[str, Any]:
        """Return the result of a stage; empty while it is not done."""
        stage = self.manifest.stages.get(name)
        known = self._is_done(name) if name == "compare" else self._settled(name)
        return stage.result if stage is not None and known else {}

    # --- the stages: each returns its result as plain data

    async def _data(self, _stage: StageRecord) -> dict[str, Any]:
        data = self.training.spec.data
        return {
            "source": self.training.source,
            "rows": data.rows,
            "valid_rows": data.valid_rows,
            "fingerprint": data.fingerprint,
        }

    async def _validate(self, _stage: StageRecord) -> dict[str, Any]:
        for remark in self.training.remarks:
            self.record.log(str(remark))
        for notice in self.training.notices:
            self.notify(notice)
        return {"remarks": len(self.training.remarks), "estimate": msgspec.to_builtins(self.training.estimate)}

    async def _baseline(self, stage: StageRecord) -> dict[str, Any]:
        return await self._run(stage, untrained(self.prepared))

    async def _train(self, _stage: StageRecord) -> dict[str, Any]:
        training = await asyncio.to_thread(self.training.open)
        await asyncio.to_thread(training.begin)
        job = training.folder.spec.job
        self.notify(f"training {job}: it continues if this command ends (ostinato ft attach {job})")
        try:
            model = await asyncio.to_thread(followed, training, self.notify, lambda: self.stop.requested)
        except asyncio.CancelledError:
            self.stop.request()
            raise
        except FinetuneError as error:
            if training.folder.state().status is not TrainingStatus.cancelled:
                raise
            self.stop.request()  # a person cancelled it, and a retry must not undo that
            self.problem = FinetuneError(f"{error}; run the pipeline again to continue it")
            raise self.problem from None
        made = training.folder.result() or {}
        facts = {key: made[key] for key in ("steps", "loss", "valid_loss", "train_s", "sha256") if made.get(key) is not None}
        return {"job": job, "model": model, **facts}

    async def _launch(self, _stage: StageRecord) -> dict[str, Any]:
        self._served = build.lm(self._tuned_experiment().config)
        await asyncio.to_thread(self._served.launch)
        return {"model": self._served.model, "endpoint": self._served.request(prompt="").endpoint}

    async def _tuned(self, stage: StageRecord) -> dict[str, Any]:
        return await self._run(stage, self._tuned_experiment())

    async def _compare(self, _stage: StageRecord) -> dict[str, Any]:
        folders = [self.folder.parent / self.result(name)["run"] for name in ("baseline", "tuned")]
        metric, gate = metric_of(self.config), self.config.gate
        clusters = values_of(self.prepared.dataset, gate.cluster) if gate.cluster else None
        found = await asyncio.to_thread(compare, *map(load, folders), scores=[metric], level=gate.level, clusters=clusters)
        difference = found.difference
        if difference is None or difference.mean is None:
            raise StageError(f"there is nothing to compare: no row has the score {metric} in both runs")
        change = found.scores[metric]
        return {
            "metric": metric,
            "difference": plain(difference),
            "level": gate.level,
            "verdict": found.verdict,
            "left_out": {"baseline": change.left_out_a, "tuned": change.left_out_b},
            "bounds": change.bounds and [plain(case) for case in change.bounds.by_case(change.lower_is_better)],
        }

    async def _register(self, _stage: StageRecord) -> dict[str, Any]:
        alias, gate = self.config.alias or self.name, self.config.gate
        compared = self.result("compare")
        if turned(compared, gate.min_gain):
            told = " to ".join(bound_of(case) for case in compared["bounds"])
            compared["undecided"] = (
                f"the lower bound of the gain is {bound_of(compared['difference'])}, but {told} in the worst and the best case "
                f"of what was left out, and must exceed gate.min_gain={gate.min_gain:g}"
            )
            raise StageError(f"undecided: {compared['undecided']}; {ADVICE}, then run the pipeline again")
        if not exceeds(compared["difference"], gate.min_gain):
            bound = bound_of(compared["difference"])
            reason = f"the lower bound of the gain is {bound}, and must exceed gate.min_gain={gate.min_gain:g}"
            return {"alias": alias, "moved": False, "reason": reason}
        lineage = {
            "pipeline": str(self.folder.name),
            "experiment": self.name,
            "config_hash": self.manifest.digest,
            "base": self.training.spec.base.name,
            "job": self.training.spec.job,
            "training_data": self.result("data"),
            "baseline": self.result("baseline"),
            "tuned": self.result("tuned"),
            **compared,
        }
        version = aliases.register(alias, msgspec.to_builtins(self._tuned_experiment().config.model), lineage)
        reason = f"the lower bound of the gain is {bound_of(compared['difference'])}"
        return {"alias": alias, "moved": True, "version": version.version, "reason": reason}

    async def _kill(self, _stage: StageRecord) -> dict[str, Any]:
        await self.aclose()
        return {}

    # --- inside

    async def _run(self, stage: StageRecord, prepared: Prepared) -> dict[str, Any]:
        """Run the experiment, or resume the run that the stage has begun."""
        experiment = await asyncio.to_thread(self._experiment, stage, prepared)
        self._running = experiment
        if self.stop.requested:
            experiment.interrupt()
        try:
            with recorded(experiment), self.watch(experiment) if self.watch else contextlib.nullcontext():
                try:
                    await asyncio.to_thread(experiment.plan)
                    if experiment.owed and not self.stop.requested:
                        await launch_and_ask(experiment, self.notify)
                except asyncio.CancelledError:
                    experiment.stop.request()
                    raise
        finally:
            self._running = None
        summary = experiment.summary
        assert summary is not None
        if summary.status == "interrupted":
            raise asyncio.CancelledError("stopped on request")
        if summary.status != "complete":
            why = summary.problem or f"{summary.errors:,} rows failed and {summary.owed:,} are owed"
            raise StageError(f"{experiment.folder.name} is {summary.status}: {why}; run the pipeline again to continue it")
        return {
            "run": experiment.folder.name,
            "model": summary.model,
            "scores": msgspec.to_builtins(summary.scores),
            "cost_usd": summary.cost_usd,
        }

    def _experiment(self, stage: StageRecord, prepared: Prepared) -> Experiment:
        begun = stage.result.get("run")
        if begun is not None and (self.folder.parent / begun / "manifest.json").is_file():
            return Experiment.reopen(self.folder.parent / begun, like=self.config, again=FAILURES)
        experiment = Experiment.create(prepared, self.overrides)
        stage.result = {"run": experiment.folder.name}
        self._save()
        return experiment

    def _tuned_experiment(self) -> Prepared:
        return asking(self.prepared, self.result("train")["model"])

    def _settled(self, name: str) -> bool:
        """Return whether a stage is done for its present inputs, and its result still exists."""
        stage = self.manifest.stages.get(name)
        if stage is None or not self._is_done(name):
            return False
        if name in ("baseline", "tuned"):
            return (self.folder.parent / str(stage.result["run"]) / "summary.json").is_file()
        if name == "compare":  # what was left out may have been asked again
            return not stage.result.get("undecided")
        if name == "train":
            return trained_model(str(stage.result["job"])) is not None
        if name in ("launch", "kill"):  # a server lives as long as its process, and is needed while there is something to ask
            return self._settled("tuned") and self._served is None
        return True

    def _is_done(self, name: str) -> bool:
        stage = self.manifest.stages.get(name)
        return stage is not None and stage.status == "done" and stage.key == self.keys[name]

    def _status(self) -> PipelineStatus:
        if not self.owed:
            return "complete"
        if self.stop.requested and self.problem is None:
            return "interrupted"
        return "incomplete" if isinstance(self.problem, StageError) else "failed"

    def _save(self) -> None:
        self.record.write(self.manifest)


def outlook(config: RunConfig) -> dict[str, Any]:
    """Forecast a pipeline: which stages are done and owed, and what the training takes.

    Raises:
        ConfigError, DataError: the pipeline could not begin.
    """
    prepared, begun, record = located(config)
    owed = STAGES if record is None else Pipeline(prepared, begun, record, ()).owed
    return {
        "name": prepared.config.name,
        "job": prepared.training.spec.job,
        "stages": {name: "owed" if name in owed else "done" for name in STAGES},
        "estimate": msgspec.to_builtins(prepared.training.estimate),
    }


def attach_pipeline(folder: str) -> Pipeline:
    """Return the pipeline that runs in this folder and process.

    Raises:
        RecordError: this process does not run it, and so lacks what its stages need.
    """
    if (pipeline := live(folder, Pipeline)) is None:
        raise RecordError(f"{folder} is not being played by this process; run `ostinato pipeline` again to continue it")
    return pipeline
