"""A pipeline and its folder: baseline, train, launch, evaluate, compare, register.

A stage is recorded under a hash of all its inputs, and is not repeated while that hash stays the same. So finished stages are
never repeated, even if the pipeline was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runner import build
from runner.analysis.compare import compare
from runner.analysis.load import load
from runner.batch.engine import Stop
from runner.config.compose import read
from runner.config.roles import adjusted_like, config_hash, identity_hash
from runner.errors import ConfigError, FinetuneError, OstinatoError, RecordError, StageError
from runner.experiment.columns import values_of
from runner.experiment.experiment import Experiment
from runner.experiment.files import digests_of
from runner.experiment.prepared import prepare
from runner.experiment.run import FAILURES, launch_and_ask
from runner.experiment.train_first import asking, followed, trained_model, untrained
from runner.finetune.jobs.spec import canonical
from runner.finetune.jobs.status import TrainingStatus
from runner.models import aliases
from runner.records import find_run
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
    from runner.stats.stats import Paired

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
        self.keys = _keys(prepared, begun)
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

        prepared, begun, record = _located(config)
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
        metric, gate = _metric(self.config), self.config.gate
        clusters = values_of(self.prepared.dataset, gate.cluster) if gate.cluster else None
        found = await asyncio.to_thread(compare, *map(load, folders), scores=[metric], level=gate.level, clusters=clusters)
        difference = found.difference
        if difference is None or difference.mean is None:
            raise StageError(f"there is nothing to compare: no row has the score {metric} in both runs")
        change = found.scores[metric]
        return {
            "metric": metric,
            "difference": _plain(difference),
            "level": gate.level,
            "verdict": found.verdict,
            "left_out": {"baseline": change.left_out_a, "tuned": change.left_out_b},
            "bounds": change.bounds and [_plain(case) for case in change.bounds.by_case(change.lower_is_better)],
        }

    async def _register(self, _stage: StageRecord) -> dict[str, Any]:
        alias, gate = self.config.alias or self.name, self.config.gate
        compared = self.result("compare")
        if _turned(compared, gate.min_gain):
            told = " to ".join(_bound(case) for case in compared["bounds"])
            compared["undecided"] = (
                f"the lower bound of the gain is {_bound(compared['difference'])}, but {told} in the worst and the best case of "
                f"what was left out, and must exceed gate.min_gain={gate.min_gain:g}"
            )
            raise StageError(f"undecided: {compared['undecided']}; {ADVICE}, then run the pipeline again")
        if not _exceeds(compared["difference"], gate.min_gain):
            bound = _bound(compared["difference"])
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
        reason = f"the lower bound of the gain is {_bound(compared['difference'])}"
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


def _plain(found: Paired) -> dict[str, Any]:
    return {"mean": found.mean, "ci": found.ci, "p": found.p, "n": found.n}


def _exceeds(difference: dict[str, Any], min_gain: float) -> bool:
    """Return whether the lower bound of a gain exceeds `min_gain`; one row gives no bound."""
    return difference["ci"] is not None and difference["ci"][0] > min_gain


def _turned(compared: dict[str, Any], min_gain: float) -> bool:
    """Return whether what was left out of one run can open a closed gate, or close an open one."""
    known = _exceeds(compared["difference"], min_gain)
    return any(_exceeds(case, min_gain) != known for case in compared.get("bounds") or ())


def _bound(difference: dict[str, Any]) -> str:
    return "unknown (one row gives no interval)" if difference["ci"] is None else f"{difference['ci'][0]:+.3f}"


def _keys(prepared: Prepared, begun: RunConfig) -> dict[str, str]:
    """Hash what each stage is made from: the data, the settings, and through them the stages before it.

    Args:
        prepared: the experiment.
        begun: its config, with the adjustable groups as they were when the pipeline began: a larger budget repeats no stage.
    """
    config, training, rows = prepared.config, prepared.training, prepared.dataset.fingerprint
    base = adjusted_like(untrained(prepared).config, begun)
    data = _key(msgspec.to_builtins(training.spec.data), training.source)
    baseline = _key(config_hash(base), rows, digests_of(base))
    train = _key(training.spec.job)
    tuned = _key(baseline, train)
    compared = _key(baseline, tuned, _metric(config), config.gate.level, config.gate.cluster)
    return {
        "data": data,
        "validate": _key(data, rows),
        "baseline": baseline,
        "train": train,
        "launch": tuned,
        "tuned": tuned,
        "compare": compared,
        "register": _key(compared, config.gate.min_gain, config.alias),
        "kill": tuned,
    }


def _key(*parts: Any) -> str:
    return hashlib.sha256(canonical(parts)).hexdigest()


def outlook(config: RunConfig) -> dict[str, Any]:
    """Forecast a pipeline: which stages are done and owed, and what the training takes.

    Raises:
        ConfigError, DataError: the pipeline could not begin.
    """
    prepared, begun, record = _located(config)
    owed = STAGES if record is None else Pipeline(prepared, begun, record, ()).owed
    return {
        "name": prepared.config.name,
        "job": prepared.training.spec.job,
        "stages": {name: "owed" if name in owed else "done" for name in STAGES},
        "estimate": msgspec.to_builtins(prepared.training.estimate),
    }


def _located(config: RunConfig) -> tuple[Prepared, RunConfig, PipelineFolder | None]:
    """Prepare a pipeline, and look for its folder.

    Returns:
        The experiment, whose training rows are read; its config as the pipeline began with it, except for the run that it learns
        from; and the pipeline's folder, None if it has none.

    Raises:
        ConfigError, DataError, RecordError: the pipeline could not begin.
    """
    prepared = prepare(config)
    check_pipeline(prepared)
    prepared = prepared.replace(name=prepared.name)
    begun, record = _found(prepared.config)
    prepared = _sourced(prepared, record.read().source if record else None)
    _ = prepared.training  # reads and checks the rows before a folder is made
    return prepared, begun, record


def _found(config: RunConfig) -> tuple[RunConfig, PipelineFolder | None]:
    """Find the newest pipeline with the same inputs, whatever its budget, limits and launch were.

    Returns:
        `config` with the adjustable groups that the pipeline began with, and its folder; `config` itself and None if there is
        no such pipeline.
    """
    runs_dir, name, digest = Path(config.runs_dir), config.name or "", config_hash(config)
    for path in PipelineFolder.paths_of(runs_dir, name, digest):
        if (record := PipelineFolder.open(path)).read().digest == digest:
            return config, record
    for path in PipelineFolder.paths_of(runs_dir, name):
        with contextlib.suppress(ConfigError, RecordError):  # written by another version, or damaged
            begun = read(path / "config.yaml")
            if identity_hash(begun) == identity_hash(config):
                return adjusted_like(config, begun), PipelineFolder.open(path)
    return config, None


def _sourced(prepared: Prepared, source: str | None) -> Prepared:
    """Fix the run to learn from by its full name: ``latest`` changes as soon as the baseline has run.

    Args:
        prepared: whose ``finetune.data.from_run`` may be any name of a run.
        source: the name that an earlier sitting has found for it.

    Raises:
        RecordError: there is no such run.
    """
    finetune = prepared.config.finetune
    assert finetune is not None
    data = finetune.data
    if data.from_run is None:
        return prepared
    if source is None:
        run = find_run(data.from_run, Path(prepared.config.runs_dir)).path
        source = f"{run.parent.name}/{run.name}"
    pinned = msgspec.structs.replace(data, from_run=source)
    return prepared.replace(finetune=msgspec.structs.replace(finetune, data=pinned))


def check_pipeline(prepared: Prepared) -> None:
    """Raise ConfigError if no pipeline can be made of the config."""
    config = prepared.config
    if config.finetune is None:
        raise ConfigError(
            "a pipeline trains a model, but finetune is not set: add finetune=default finetune.data.path=..., "
            "or play the shipped example: experiment=tickets_finetune"
        )
    names = list(build.scorers(config))
    if not names:
        raise ConfigError("scoring=none: a pipeline compares scores; choose a scorer")
    cluster, columns = config.gate.cluster, prepared.dataset.columns
    if cluster is not None and cluster not in columns:
        raise ConfigError(f"gate.cluster: the data has no column '{cluster}'; it has {', '.join(columns)}")
    if config.gate.metric is not None and config.gate.metric not in names:
        raise ConfigError(f"gate.metric: there is no score '{config.gate.metric}'; there is {', '.join(names)}")


def _metric(config: RunConfig) -> str:
    return config.gate.metric or next(iter(build.scorers(config)))


def attach_pipeline(folder: str) -> Pipeline:
    """Return the pipeline that runs in this folder and process.

    Raises:
        RecordError: this process does not run it, and so lacks what its stages need.
    """
    if (pipeline := live(folder, Pipeline)) is None:
        raise RecordError(f"{folder} is not being played by this process; run `ostinato pipeline` again to continue it")
    return pipeline
