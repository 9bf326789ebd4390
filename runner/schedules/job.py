"""Run one turn of a schedule, and decide whether it failed. Plain Python: knows nothing of the scheduler.

A `Job` is what a user applies: overrides and the hash of what they compose to, never a secret and never the config itself. Every
turn composes again and refuses a config with another hash, so only the config that was checked when it was applied ever runs.
Rows of data are not part of the hash, so new data is used; the manifest has its fingerprint.
"""

from __future__ import annotations

import asyncio
import pkgutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config.roles import config_hash
from runner.config.schema import RunConfig
from runner.config.schema.schedule import Schedule
from runner.errors import CanaryFailed, CanaryUndecided, ConfigError, OstinatoError, ScheduleError
from runner.experiment.experiment import Experiment
from runner.experiment.prepared import prepare
from runner.experiment.run import FAILURES, RunResult, run_within
from runner.experiment.train_first import train_first
from runner.pipelines.pipeline import STAGES, Pipeline, check_pipeline
from runner.records import RunFolder
from runner.schedules import canary
from runner.secrets import redact
from runner.session.loop import Notify
from runner.session.orchestrator import Orchestrate
from runner.system.paths import expanded
from runner.wording.statuses import ADVICE
from runner.wording.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS: dict[str, str] = {
    "run": "runner.schedules.job:run_once",
    "canary": "runner.schedules.job:run_canary",
    "pipeline": "runner.schedules.job:run_pipeline",
}
"""Kinds of ``schedule.what``: each is a coroutine function that takes a `Turn` and raises if the turn has failed."""

_RECENT = 50
"""How many of the experiment's newest runs are searched for the record of an earlier attempt."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a turn needs, as plain JSON without secrets.

    Attributes:
        name: the schedule's name.
        experiment: the name under which runs are recorded.
        overrides: the overrides that compose the config.
        folder: the working directory of its runs, absolute.
        config_name: the primary config.
        config_dir: a folder of configs, absolute; None: ``./conf`` and the shipped ones.
        config_hash: the hash of the config when it was applied.
        schedule: when to run, and how.
    """

    name: str
    experiment: str
    overrides: list[str]
    folder: str
    config_name: str = "config"
    config_dir: str | None = None
    config_hash: str
    schedule: Schedule

    @classmethod
    def prepare(cls, overrides: Sequence[str], *, config_name: str = "config", config_dir: str | None = None) -> Job:
        """Compose the config, and check everything that can be checked without asking the model.

        Raises:
            ConfigError, DataError, RecordError: something is wrong.
        """
        from runner.config.compose import compose

        if secret := next((override for override in overrides if redact(override) != override), None):
            raise ConfigError(f"'{redact(secret)}': looks like a secret; the worker reads secrets from its environment variables")
        config = compose(list(overrides), config_name=config_name, config_dir=config_dir).config()
        schedule = _checked(config)
        if config.sweep.varies:
            raise ConfigError("the config has a section `sweep`, but a schedule plays one run; schedule an experiment without it")
        prepared = prepare(config)  # each turn resolves the alias of a model again
        if schedule.what == "pipeline":
            check_pipeline(prepared)
        prepared.parts()
        experiment = prepared.name
        return cls(
            name=schedule.name or (experiment if schedule.what == "run" else f"{experiment}-{schedule.what}"[:64]),
            experiment=experiment,
            overrides=list(overrides),
            folder=str(Path.cwd()),
            config_name=config_name,
            config_dir=str(expanded(config_dir).absolute()) if config_dir else None,
            config_hash=config_hash(msgspec.structs.replace(config, name=experiment)),
            schedule=schedule,
        )

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Job:
        """Return the job that `parameters` describe. Raises ScheduleError."""
        try:
            return msgspec.convert(parameters, cls)
        except msgspec.ValidationError as error:
            raise ScheduleError(f"this version of ostinato cannot play the schedule: {error}; apply it again") from None

    def parameters(self) -> dict[str, Any]:
        """Return the job as plain JSON."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def config(self) -> RunConfig:
        """Compose the config again, in the working directory of this process.

        Raises:
            ConfigError: it cannot be composed.
            ScheduleError: it is not the config that was applied.
        """
        from runner.config.compose import compose

        composed = compose(self.overrides, config_name=self.config_name, config_dir=self.config_dir).config()
        config = msgspec.structs.replace(composed, name=self.experiment)
        if (now := config_hash(config)) != self.config_hash:
            raise ScheduleError(
                f"the config is not the one that was applied (hash {self.config_hash[:6]}, now {now[:6]}): a YAML file in "
                f"{self.folder} or ostinato itself has changed. Look at it, and apply the schedule '{self.name}' again"
            )
        return config

    def record_of(self, flow_run: str) -> RunFolder | None:
        """Return the record that an earlier attempt of this turn started, or None."""
        try:
            runs = sorted(Path(self.folder, self._runs_dir(), self.experiment).glob("[0-9]*/manifest.json"), reverse=True)
            for manifest in runs[:_RECENT]:
                record = RunFolder(manifest.parent)
                if record.manifest().get("schedule", {}).get("flow_run") == flow_run:
                    return record
        except OstinatoError:
            return None
        return None

    def _runs_dir(self) -> str:
        from runner.config.compose import compose

        return compose(self.overrides, config_name=self.config_name, config_dir=self.config_dir).config().runs_dir


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one turn of a schedule.

    Attributes:
        job: what was applied.
        config: what it composes to.
        flow_run: the id of this turn, the same for all its attempts.
        due: when it was due, in ISO 8601; None if it was requested by hand.
        attempt: 1 for the first attempt.
        orchestrate: calls the stages.
        notify: called with each line for people.
    """

    job: Job
    config: RunConfig
    flow_run: str
    due: str | None
    attempt: int
    orchestrate: Orchestrate
    notify: Notify

    async def run(self) -> None:
        """Run it. Raises what its kind raises, including ScheduleError and CanaryFailed."""
        await _kind(self.job.schedule.what)(self)


Kind = Callable[[Turn], Awaitable[None]]


async def run_once(turn: Turn) -> None:
    """Run the experiment. The turn has failed if the run is not complete, for example because rows failed."""
    await _completed(turn, turn.config)


async def run_canary(turn: Turn) -> None:
    """Ask the model again, and fail if it scores significantly worse than the reference. Such a verdict is never retried.

    If the verdict is undecided, the turn has failed, too, and is retried: rows that were refused are asked again.
    """
    policy = turn.job.schedule.canary
    assert policy.reference is not None
    result = await _completed(turn, canary.without_cache_reads(turn.config))
    verdict = canary.is_worse(Path(policy.reference), result.folder, policy.level)
    record = RunFolder.open(result.folder)
    facts = {"reference": policy.reference, "level": policy.level, **msgspec.to_builtins(verdict)}
    record.write_manifest({**record.manifest(), "canary": facts})
    turn.notify(f"canary: {verdict}")
    if verdict.undecided:
        raise CanaryUndecided(
            f"{verdict}, because what was left out can turn the verdict; {ADVICE}; {policy.reference} and {result.folder}"
        )
    if verdict.worse:
        raise CanaryFailed(f"{verdict}; {policy.reference} and {result.folder}")


async def run_pipeline(turn: Turn) -> None:
    """Train, compare and register. A gain too small to register is an outcome, not a failure."""
    pipeline = await asyncio.to_thread(Pipeline.create, turn.config, turn.job.overrides)
    pipeline.notify = turn.notify
    try:
        for name in STAGES:
            await pipeline.stage(name)
    except OstinatoError as error:
        pipeline.problem = error
        raise
    except asyncio.CancelledError:
        pipeline.stop.request()
        raise
    finally:
        await asyncio.shield(pipeline.aclose())
        pipeline.finish()
    told = pipeline.result("register")
    turn.notify(f"pipeline: {told['alias']} {'moved' if told['moved'] else 'stays'}: {told['reason']} ({pipeline.folder})")


async def _completed(turn: Turn, config: RunConfig) -> RunResult:
    """Run what the turn owes. Raises ScheduleError if the run is not complete afterwards."""
    before = turn.job.record_of(turn.flow_run) if turn.attempt > 1 else None
    if before is not None:
        experiment = Experiment.reopen(before.path, again=FAILURES)
    else:
        stopped = threading.Event()
        try:
            ready = await asyncio.to_thread(train_first, prepare(config), turn.notify, stop=stopped.is_set)
        except asyncio.CancelledError:
            stopped.set()
            raise
        experiment = Experiment.create(ready, turn.job.overrides)
    facts = {"name": turn.job.name, "what": turn.job.schedule.what, "flow_run": turn.flow_run, "due": turn.due}
    experiment.record.write_manifest({**experiment.record.manifest(), "schedule": {**facts, "attempt": turn.attempt}})
    result = await run_within(experiment, turn.orchestrate, notify=turn.notify)
    summary = result.summary
    turn.notify(f"{turn.job.name}: {summary.status}, {summary.ok:,} of {summary.rows:,} rows ok: {result.folder}")
    if summary.status != "complete":
        what = summary.problem or f"{summary.errors:,} rows failed, {summary.owed:,} are owed"
        raise ScheduleError(f"the run is {summary.status}: {what} ({result.folder})")
    return result


def _checked(config: RunConfig) -> Schedule:
    """Return the schedule, checked, with its reference pinned. Raises ConfigError."""
    schedule = config.schedule
    if schedule.cron is None and schedule.interval_s is None and schedule.rrule is None:
        raise ConfigError("schedule: no time is set; give schedule.cron, schedule.interval_s or schedule.rrule")
    _kind(schedule.what)
    if schedule.what == "canary":
        reference = str(canary.pinned(config))
        return msgspec.structs.replace(schedule, canary=msgspec.structs.replace(schedule.canary, reference=reference))
    return schedule


def _kind(what: str) -> Kind:
    if what not in KINDS:
        raise ConfigError(f"schedule.what: there is no '{what}'{did_you_mean(what, KINDS)}")
    kind: Kind = pkgutil.resolve_name(KINDS[what])
    return kind
