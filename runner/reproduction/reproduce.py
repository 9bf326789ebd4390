"""Reproduce a run from its record alone: first report what has changed since, afterwards which answers differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.config.schema.running import Cache
from runner.errors import RecordError
from runner.experiment.drift import adjusted
from runner.experiment.estimate import announcement, expected, forecast, reasks
from runner.experiment.experiment import Experiment
from runner.experiment.prepared import prepare
from runner.experiment.recorded import recorded_overrides
from runner.experiment.run import EXIT_CODES, run_to_end
from runner.experiment.served import pin_recorded
from runner.records import RunFolder, Summary, find_run
from runner.reproduction.agreement import Agreement, agree
from runner.reproduction.checks import Check, checks, of_served
from runner.session.sitting import recorded
from runner.wording.numbers import dollars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.config.schema import RunConfig
    from runner.experiment.run import Watch
    from runner.session.loop import Notify


class Reproduction(msgspec.Struct, kw_only=True):
    """The outcome of reproducing a run.

    Attributes:
        reproduces: the folder of the recorded run.
        folder: the folder of the new run; None if nothing was run.
        checks: what the run was made from, then and now.
        agreement: how the two runs agree.
        summary: the summary of the new run.
        strict: whether a difference is a failure.
        replay: whether only the cache answered.
        estimate: what asking again takes at most, for people.
    """

    reproduces: Path
    checks: list[Check]
    folder: Path | None = None
    agreement: Agreement | None = None
    summary: Summary | None = None
    strict: bool = False
    replay: bool = False
    estimate: str | None = None

    @property
    def drifted(self) -> list[Check]:
        """Return what has changed or is missing."""
        return [check for check in self.checks if check.drifted]

    @property
    def exit_code(self) -> int:
        """Return the command's exit code: 100 if answers differ that must not, else 0, 3 or the exit code of `ostinato run`."""
        if self.summary is None or self.agreement is None:
            return 0
        differs = self.agreement.differs or (self.strict and bool(self.drifted))
        if self.replay:
            return 100 if differs else 3 if self.agreement.gone else 0
        code = EXIT_CODES[self.summary.status]
        return 100 if self.strict and differs and code in (0, 3) else code

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "reproduces": str(self.reproduces),
            "run": str(self.folder) if self.folder else None,
            "strict": self.strict,
            "replay": self.replay,
            "estimate": self.estimate,
            "drift": [msgspec.to_builtins(check) for check in self.drifted],
            "checks": {check.what: check.state for check in self.checks},
            "agreement": msgspec.to_builtins(self.agreement) if self.agreement else None,
            "identical": not self.agreement.differs and not self.agreement.gone if self.agreement else None,
            "summary": self.summary.to_dict() if self.summary else None,
        }


def preview(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    replay: bool = False,
    strict: bool = False,
    runs_dir: str | Path | None = None,
    notify: Notify | None = None,
) -> Reproduction:
    """Compare the inputs of a run with the present ones, and estimate the cost of asking again. Sends nothing.

    Args and errors are those of `reproduce`.
    """
    found = _inspect(_record(run, runs_dir), overrides, replay=replay, strict=strict, notify=notify)
    prepared = prepare(found.config, cwd=found.cwd)
    estimate = "nothing: only the cache answers" if replay else forecast(prepared).estimate.line()
    return Reproduction(reproduces=found.record.path, checks=found.checks, strict=strict, replay=replay, estimate=estimate)


def reproduce(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    replay: bool = False,
    strict: bool = False,
    runs_dir: str | Path | None = None,
    notify: Notify | None = None,
    watch: Watch | None = None,
) -> Reproduction:
    """Run a recorded run again, as a new run, and compare the two.

    By default every request is sent again: an answer from the cache would say nothing about the model. The cache is neither
    read nor written, so the answers of the first run stay in it.

    Args:
        run: a run folder, or a run's name as `load` takes it (``latest``, an experiment, ``<experiment>/<stamp>``, a prefix).
        overrides: changes of the budget, the limits, the launch or the execution.
        replay: answer from the cache only, and send nothing. This checks the record, not the model.
        strict: refuse to start if anything has changed.
        runs_dir: where runs are, and where the new run's folder goes; None: ``runs``, and where the run's config says.
        notify: called with each line for people.
        watch: a context manager around the run, given the Experiment: for progress displays.

    Returns:
        What has changed since the run, the record of the new run, and how far the two agree.

    Raises:
        RecordError: there is no such run; something that it needs is missing; or, with `strict`, has changed.
        ConfigError: its config was edited since. Also whatever `run` raises.
    """
    found = _inspect(_record(run, runs_dir), overrides, replay=replay, strict=strict, notify=notify)
    config = msgspec.structs.replace(found.config, runs_dir=str(runs_dir)) if runs_dir else found.config
    record, asked = found.record, [*recorded_overrides(found.record), *overrides]
    prepared = prepare(config, cwd=found.cwd)
    experiment = Experiment.create(prepared, asked, facts={"reproduces": _name(record)}, partial=True)
    experiment.ask_as_recorded(record)
    if replay:
        manifest = record.manifest()
        pin_recorded(experiment.lm, manifest.get("model", {}).get("endpoint"))  # the answers are under its keys
        experiment.named.pin(manifest.get("models", {}))
        with recorded(experiment):
            experiment.plan()
    else:
        experiment.plan()
        if notify:
            _announce(experiment, found, notify)
        run_to_end(experiment, notify=notify, watch=watch)
    after = RunFolder.open(experiment.folder)
    return Reproduction(
        reproduces=record.path,
        checks=[*found.checks, of_served(record.manifest(), after.manifest())],
        folder=experiment.folder,
        agreement=agree(record, after),
        summary=experiment.summary,
        strict=strict,
        replay=replay,
    )


class _Inspected(NamedTuple):
    """A record, the config that runs again, where its files are looked for, and what has changed since."""

    record: RunFolder
    config: RunConfig
    cwd: Path
    checks: list[Check]


def _record(run: str | Path, runs_dir: str | Path | None) -> RunFolder:
    record = find_run(str(run), Path(runs_dir or "runs"))
    record.refuse_foreign("reproduced")
    return record


def _inspect(record: RunFolder, overrides: Sequence[str], *, replay: bool, strict: bool, notify: Notify | None) -> _Inspected:
    """Compare a record with the present inputs. Raises RecordError if it cannot be run again, or `strict` forbids it."""
    from runner.config.compose import read_run

    begun_with, manifest = read_run(record.config_file), record.manifest()
    cwd = _folder(manifest, notify)
    config = _config(manifest, adjusted(record, begun_with, overrides), replay=replay)
    found = checks(record, begun_with, config, cwd)
    _refuse(record, found, strict=strict)
    return _Inspected(record, config, cwd, found)


def _refuse(record: RunFolder, found: list[Check], *, strict: bool) -> None:
    """Raise RecordError if something is missing, or, with `strict`, if anything has changed."""
    missing = [check for check in found if check.state == "missing"]
    if not missing and not strict:
        return
    if drifted := [check for check in found if check.drifted]:
        told = "\n".join(f"  {line}" for check in drifted for line in check.lines())
        why = "one of its inputs is missing" if missing else "something has changed, and --strict refuses that"
        raise RecordError(f"{record.path} is not reproduced: {why}; nothing was sent:\n{told}")


def _folder(manifest: dict[str, Any], notify: Notify | None) -> Path:
    """Return where the run's files are looked for: the folder where it started, or, if that does not exist, this one."""
    recorded = Path(manifest.get("cwd", "."))
    if recorded.is_dir():
        return recorded
    if notify:
        notify(f"{recorded}, where the run started, does not exist; its files are looked for in {Path.cwd()}")
    return Path.cwd()


def _config(manifest: dict[str, Any], config: RunConfig, *, replay: bool) -> RunConfig:
    """Return the config of the new run. With `replay` it reads the cache named by the record; else it leaves the cache alone."""
    replace = msgspec.structs.replace
    folder = manifest.get("cache", {}).get("folder")
    cache = Cache(mode="replay", dir=folder or config.cache.dir) if replay else replace(config.cache, mode="off")
    return replace(config, cache=cache)


def _announce(experiment: Experiment, found: _Inspected, notify: Notify) -> None:
    """Report what has changed, and what asking again takes, before anything is sent."""
    for check in found.checks:
        for line in check.lines() if check.drifted else []:
            notify(line)
    if not experiment.owed or experiment.config.cache.mode == "replay":
        return
    before = found.record.summary()
    cost = f"; the recorded run cost {dollars(before.cost_usd)}" if before and before.cost_usd else ""
    work = expected(experiment.asker, experiment.due(), reasks=reasks(experiment.config)).line()
    told = "" if announcement(experiment) else f": {work}"  # where there is a price, it is announced when the run starts
    notify(f"asking {experiment.lm.model} again, past the cache{told}{cost}")


def _name(record: RunFolder) -> str:
    return f"{record.path.parent.name}/{record.path.name}"
