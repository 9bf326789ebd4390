"""What a schedule plays, and how a turn of it succeeds or fails. Plain Python: knows nothing of who keeps the time.

A `Job` is what is applied: overrides and the hash of what they compose to, never a secret and never the config itself. Every turn
composes anew and refuses a config whose hash is another one: what is played in the night is what was looked at by day. Rows of
data are no part of the hash, so new data is played; the manifest has its fingerprint.
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
from runner.config.schema import RunConfig, Schedule
from runner.errors import CanaryFailed, ConfigError, OstinatoError, ScheduleError
from runner.experiment.experiment import Experiment
from runner.experiment.prepared import prepare
from runner.experiment.run import FAILURES, RunResult, play_within
from runner.experiment.train_first import train_first
from runner.pipelines.pipeline import STAGES, Pipeline, check_pipeline
from runner.records import RunFolder
from runner.schedules import canary
from runner.secrets import redact
from runner.session.loop import Notify
from runner.session.orchestrator import Orchestrate
from runner.system.paths import expanded
from runner.wording.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS: dict[str, str] = {
    "run": "runner.schedules.job:play_run",
    "canary": "runner.schedules.job:play_canary",
    "pipeline": "runner.schedules.job:play_pipeline",
}
"""What ``schedule.what`` may be: a coroutine function of a `Turn` that raises when the turn has failed."""

_RECENT = 50
"""Runs of the experiment among which that of an earlier try is looked for."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is applied: everything that a turn needs, as plain JSON without secrets.

    Attributes:
        name: the schedule's name.
        experiment: the name that runs are recorded under.
        overrides: what the config is composed from.
        folder: the folder to work in, absolute.
        config_name: the primary config.
        config_dir: a folder of configs, absolute; None: ``./conf`` and the shipped ones.
        config_hash: of what the overrides composed to.
        schedule: when, and what then.
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
        """Compose, and check everything that can be found wrong without asking the model.

        Raises:
            ConfigError, DataError, RecordError: what is wrong.
        """
        from runner.config.compose import compose

        if secret := next((override for override in overrides if redact(override) != override), None):
            raise ConfigError(f"'{redact(secret)}': looks like a secret; the worker reads secrets from its environment variables")
        config = compose(list(overrides), config_name=config_name, config_dir=config_dir).config()
        schedule = _checked(config)
        if config.sweep.varies:
            raise ConfigError("the config has a section `sweep`, and a schedule plays one run; schedule an experiment without it")
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
        """The job that `parameters` describes. Raises ScheduleError."""
        try:
            return msgspec.convert(parameters, cls)
        except msgspec.ValidationError as error:
            raise ScheduleError(f"the schedule is none that this version of ostinato can play: {error}; apply it again") from None

    def parameters(self) -> dict[str, Any]:
        """The job as plain JSON."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def config(self) -> RunConfig:
        """What the overrides compose to now, in the folder where this process stands.

        Raises:
            ConfigError: it cannot be composed.
            ScheduleError: it is not what was applied.
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
        """The record that an earlier try of this turn has begun."""
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
    """One turn of a schedule, or another try of it.

    Attributes:
        job: what was applied.
        config: what it composes to.
        flow_run: what tells this turn from others, over all its tries.
        due: when it was due, in ISO 8601; None when it was asked for by hand.
        attempt: 1 for the first try.
        orchestrate: calls the stages.
        notify: told what happens, a line at a time.
    """

    job: Job
    config: RunConfig
    flow_run: str
    due: str | None
    attempt: int
    orchestrate: Orchestrate
    notify: Notify

    async def play(self) -> None:
        """Play it. Raises whatever its kind does, ScheduleError and CanaryFailed among it."""
        await _kind(self.job.schedule.what)(self)


Kind = Callable[[Turn], Awaitable[None]]


async def play_run(turn: Turn) -> None:
    """Play the experiment. The turn has failed when the run was not completed, rows that failed included."""
    await _completed(turn, turn.config)


async def play_canary(turn: Turn) -> None:
    """Ask the model anew, and fail when it scores significantly worse than the reference. Such a verdict is never tried again."""
    policy = turn.job.schedule.canary
    assert policy.reference is not None
    result = await _completed(turn, canary.asking_anew(turn.config))
    verdict = canary.is_worse(Path(policy.reference), result.folder, policy.level)
    record = RunFolder.open(result.folder)
    facts = {"reference": policy.reference, "level": policy.level, **msgspec.to_builtins(verdict)}
    record.write_manifest({**record.manifest(), "canary": facts})
    turn.notify(f"canary: {verdict}")
    if verdict.worse:
        raise CanaryFailed(f"{verdict}; {policy.reference} and {result.folder}")


async def play_pipeline(turn: Turn) -> None:
    """Train, compare and register. A gate that stays closed is an outcome, not a failure."""
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
    """Play what the turn owes. Raises ScheduleError when it does not come to its end."""
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
    result = await play_within(experiment, turn.orchestrate, notify=turn.notify)
    summary = result.summary
    turn.notify(f"{turn.job.name}: {summary.status}, {summary.ok:,} of {summary.rows:,} rows ok: {result.folder}")
    if summary.status != "complete":
        what = summary.problem or f"{summary.errors:,} rows failed, {summary.owed:,} are owed"
        raise ScheduleError(f"the run is {summary.status}: {what} ({result.folder})")
    return result


def _checked(config: RunConfig) -> Schedule:
    """The schedule, complete, with its reference pinned. Raises ConfigError."""
    schedule = config.schedule
    if schedule.cron is None and schedule.interval_s is None and schedule.rrule is None:
        raise ConfigError("schedule: say when; give schedule.cron, schedule.interval_s or schedule.rrule")
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
