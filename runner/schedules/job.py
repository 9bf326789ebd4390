"""Run one turn of a schedule, and decide whether it failed. Plain Python: knows nothing of the scheduler.

A `Job` is what a user applies. It names, by its hash, the content that every turn plays: the config and its files, as they were
when it was applied (`runner.schedules.content`), and never a secret. Remote data is fetched again at each turn; the manifest has
its fingerprint. Jobs of earlier versions name a folder instead, in which every turn composes the config again.
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
from runner.pipelines.begin import check_pipeline
from runner.pipelines.pipeline import STAGES, Pipeline
from runner.records import RunFolder
from runner.records.environment import git_of
from runner.schedules import canary, places
from runner.schedules.collect import REFERENCE
from runner.schedules.content import Content, config_in, pack, place_of
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
        overrides: the overrides that composed the config.
        config_hash: the hash of the config when it was applied.
        schedule: when to run, and how.
        content: the SHA-256 of what it carries, in hex; None: it was applied by an earlier version.
        origin: the id of the folder that it was applied in (`runner.schedules.places`).
        runs_dir: where its runs are recorded, seen from that folder.
        git: the commit of that folder's repository when it was applied, as manifests have it; None outside one.
        folder: the working directory of an earlier version's runs, absolute.
        config_name: the primary config of an earlier version.
        config_dir: an earlier version's folder of configs, absolute; None: ``./conf`` and the shipped ones.
    """

    name: str
    experiment: str
    overrides: list[str]
    config_hash: str
    schedule: Schedule
    content: str | None = None
    origin: str | None = None
    runs_dir: str = "runs"
    git: dict[str, Any] | None = None
    folder: str | None = None
    config_name: str = "config"
    config_dir: str | None = None

    def __post_init__(self) -> None:
        if self.content is None and self.folder is None:
            raise ValueError("it has neither content nor folder")

    @classmethod
    def prepare(
        cls, overrides: Sequence[str], *, config_name: str = "config", config_dir: str | None = None
    ) -> tuple[Job, Content]:
        """Compose the config, check everything that can be checked without asking the model, and pack what a turn needs.

        Raises:
            ConfigError, DataError, RecordError: something is wrong.
        """
        from runner.config.compose import compose

        if secret := next((override for override in overrides if redact(override) != override), None):
            raise ConfigError(f"'{redact(secret)}': looks like a secret; the worker reads secrets from its environment variables")
        config = compose(list(overrides), config_name=config_name, config_dir=config_dir).config()
        schedule, reference = _checked(config)
        if config.sweep.varies:
            raise ConfigError("the config has a section `sweep`, but a schedule plays one run; schedule an experiment without it")
        prepared = prepare(config)  # each turn resolves the alias of a model again
        if schedule.what == "pipeline":
            check_pipeline(prepared)
        prepared.parts()
        experiment = prepared.name
        content = pack(msgspec.structs.replace(config, name=experiment), reference=reference)
        return cls(
            name=schedule.name or (experiment if schedule.what == "run" else f"{experiment}-{schedule.what}"[:64]),
            experiment=experiment,
            overrides=list(overrides),
            config_hash=config_hash(content.config),
            schedule=schedule,
            content=content.sha256,
            origin=places.id_of(Path.cwd()),
            runs_dir=config.runs_dir,
            git=git_of(None),
        ), content

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
        return {name: value for name, value in plain.items() if value is not None}

    @property
    def place(self) -> Path:
        """Return the folder that its runs are recorded in on this machine: that of `apply`, else one under ``OSTINATO_HOME``."""
        if self.folder is not None:
            return Path(self.folder)
        return (places.folder_of(self.origin) if self.origin else None) or places.elsewhere(self.name)

    @property
    def files(self) -> Path:
        """Return the working directory of its turns, in which the config's files are."""
        return Path(self.folder) if self.content is None and self.folder else place_of(self.content or "")

    @property
    def reference(self) -> Path:
        """Return the folder of the run that a canary is compared with."""
        return self.files / REFERENCE if self.content else Path(self.schedule.canary.reference or "")

    def config(self) -> RunConfig:
        """Return the config of a turn, whose working directory is `files`. Runs are recorded in `place`.

        Raises:
            ConfigError: it cannot be read or composed.
            ScheduleError: it is not the config that was applied.
        """
        if self.content is not None:
            return self._carried()
        composed = self._composed()
        config = msgspec.structs.replace(composed, name=self.experiment)
        if (now := config_hash(config)) != self.config_hash:
            raise ScheduleError(
                f"the config is not the one that was applied (hash {self.config_hash[:6]}, now {now[:6]}): a YAML file in "
                f"{self.folder} or ostinato itself has changed. Look at it, and apply the schedule '{self.name}' again"
            )
        return config

    def _carried(self) -> RunConfig:
        from runner.config.compose import read_run

        config = read_run(config_in(self.files))
        if (now := config_hash(config)) != self.config_hash:
            raise ScheduleError(
                f"this version of ostinato reads the config otherwise than the one that applied it (hash {self.config_hash[:6]}, "
                f"now {now[:6]}); install the same version, or apply the schedule '{self.name}' again"
            )
        replace = msgspec.structs.replace
        if config.cache.dir is not None:
            config = replace(config, cache=replace(config.cache, dir=str(self.place / expanded(config.cache.dir))))
        return replace(config, runs_dir=str(self.place / expanded(config.runs_dir)))

    def _composed(self) -> RunConfig:
        from runner.config.compose import compose

        return compose(self.overrides, config_name=self.config_name, config_dir=self.config_dir).config()

    def record_of(self, flow_run: str) -> RunFolder | None:
        """Return the record that an earlier attempt of this turn started on this machine, or None."""
        try:
            runs_dir = self.runs_dir if self.content is not None else self._composed().runs_dir
            runs = sorted((self.place / expanded(runs_dir) / self.experiment).glob("[0-9]*/manifest.json"), reverse=True)
            for manifest in runs[:_RECENT]:
                record = RunFolder(manifest.parent)
                if record.manifest().get("schedule", {}).get("flow_run") == flow_run:
                    return record
        except OstinatoError:
            return None
        return None


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
    verdict = canary.is_worse(turn.job.reference, result.folder, policy.level)
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
    facts: dict[str, Any] = {"name": turn.job.name, "what": turn.job.schedule.what, "flow_run": turn.flow_run, "due": turn.due}
    if turn.job.content is not None:
        facts |= {"content": turn.job.content, "git": turn.job.git}
    experiment.record.write_manifest({**experiment.record.manifest(), "schedule": {**facts, "attempt": turn.attempt}})
    result = await run_within(experiment, turn.orchestrate, notify=turn.notify)
    summary = result.summary
    turn.notify(f"{turn.job.name}: {summary.status}, {summary.ok:,} of {summary.rows:,} rows ok: {result.folder}")
    if summary.status != "complete":
        what = summary.problem or f"{summary.errors:,} rows failed, {summary.owed:,} are owed"
        raise ScheduleError(f"the run is {summary.status}: {what} ({result.folder})")
    return result


def _checked(config: RunConfig) -> tuple[Schedule, RunFolder | None]:
    """Return the schedule, checked, with the name of its reference pinned, and that run. Raises ConfigError."""
    schedule = config.schedule
    if schedule.cron is None and schedule.interval_s is None and schedule.rrule is None:
        raise ConfigError("schedule: no time is set; give schedule.cron, schedule.interval_s or schedule.rrule")
    _kind(schedule.what)
    if schedule.what != "canary":
        return schedule, None
    reference = RunFolder.open(canary.pinned(config))
    name = f"{reference.path.parent.name}/{reference.path.name}"
    return msgspec.structs.replace(schedule, canary=msgspec.structs.replace(schedule.canary, reference=name)), reference


def _kind(what: str) -> Kind:
    if what not in KINDS:
        raise ConfigError(f"schedule.what: there is no '{what}'{did_you_mean(what, KINDS)}")
    kind: Kind = pkgutil.resolve_name(KINDS[what])
    return kind
