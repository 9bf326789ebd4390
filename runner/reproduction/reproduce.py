"""Playing a run again from its record alone: what has changed since is told first, what came out otherwise afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config.schema import Cache
from runner.errors import RecordError
from runner.experiment.drift import adjusted, rooted
from runner.experiment.estimate import announcement, expected, forecast, reasks
from runner.experiment.experiment import Experiment, recorded_overrides
from runner.experiment.run import EXIT_CODES, play_to_end
from runner.records import RunFolder, Summary, find_run
from runner.reproduction.agreement import Agreement, agree
from runner.reproduction.checks import Check, checks, of_served
from runner.session.sitting import recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.config.schema import RunConfig
    from runner.experiment.run import Watch
    from runner.session.loop import Notify


class Reproduction(msgspec.Struct, kw_only=True):
    """What came of reproducing a run.

    Attributes:
        reproduces: the folder of the run that was played again.
        folder: that of the new run; None when nothing was played.
        checks: what the run was made from, then and now.
        agreement: how the two agree.
        summary: of the new run.
        strict: whether a difference is a failure.
        replay: whether the cache answered, and nobody else.
        estimate: what asking again takes at the most, for people.
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
        """What is not as it was."""
        return [check for check in self.checks if check.drifted]

    @property
    def exit_code(self) -> int:
        """What the command ends with: 100 where answers differ that should not, else 0, 3 or what `ostinato run` ends with."""
        if self.summary is None or self.agreement is None:
            return 0
        differs = self.agreement.differs or (self.strict and bool(self.drifted))
        if self.replay:
            return 100 if differs else 3 if self.agreement.gone else 0
        code = EXIT_CODES[self.summary.status]
        return 100 if self.strict and differs and code in (0, 3) else code

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
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


def reproduce(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    replay: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    runs_dir: str | Path | None = None,
    notify: Notify | None = None,
    watch: Watch | None = None,
) -> Reproduction:
    """Play a run again, as a new run, and compare.

    By default the model is asked anew: an answer from the cache would say nothing about the model. The cache is neither read nor
    written, so that the first run's answers stay where they are.

    Args:
        run: a run folder, or a run's name as `load` takes it (``latest``, an experiment, ``<experiment>/<stamp>``, a prefix).
        overrides: changes of the budget, the limits, the launch or the execution.
        replay: answer from the cache only, and send nothing: this proves the record, not the model.
        strict: refuse to begin when anything is not as it was.
        dry_run: only look what has changed, and what asking again would take.
        runs_dir: where runs are, and where the new run's folder goes; None: ``runs``, and where the run's config says.
        notify: told what happens, a line at a time.
        watch: a context manager around the playing, given the Experiment: for progress displays.

    Returns:
        What has changed since the run, the record of the new run, and how far the two agree.

    Raises:
        RecordError: there is no such run; something it needs is not there any more; or, with `strict`, has changed.
        ConfigError: its config was edited since. And whatever `run` raises.
    """
    from runner.config.compose import read

    record = find_run(str(run), Path(runs_dir or "runs"))
    begun_with, manifest = read(record.config_file), record.manifest()
    cwd = _folder(manifest, notify)
    config = _config(manifest, adjusted(record, begun_with, overrides), replay=replay, runs_dir=runs_dir)
    found = checks(record, begun_with, config, cwd)
    _refuse(record, found, strict=strict)
    result = Reproduction(reproduces=record.path, checks=found, strict=strict, replay=replay)
    if dry_run:
        result.estimate = (
            "nothing: the cache is to answer" if replay else forecast(rooted(config, {"cwd": str(cwd)})).estimate.line()
        )
        return result
    asked = [*recorded_overrides(record), *overrides]
    experiment = Experiment.create(config, asked, cwd=cwd, facts={"reproduces": _name(record)}, partial=True)
    if replay:
        with recorded(experiment):
            experiment.plan()
    else:
        experiment.plan()
        if notify:
            _announce(experiment, record, found, notify)
        play_to_end(experiment, notify=notify, watch=watch)
    result.folder, result.summary = experiment.folder, experiment.summary
    again = RunFolder.open(experiment.folder)
    result.checks = [*found, of_served(manifest, again.manifest())]
    result.agreement = agree(record, again)
    return result


def _refuse(record: RunFolder, found: list[Check], *, strict: bool) -> None:
    """Raise RecordError where the run cannot be played again, or, when strict, not under the same conditions."""
    missing = [check for check in found if check.state == "missing"]
    if not missing and not strict:
        return
    if drifted := [check for check in found if check.drifted]:
        told = "\n".join(f"  {line}" for check in drifted for line in check.lines())
        why = "something that it was made from cannot be had" if missing else "not all is as it was, and --strict refuses that"
        raise RecordError(f"{record.path} is not played again: {why}; nothing was sent:\n{told}")


def _folder(manifest: dict[str, Any], notify: Notify | None) -> Path:
    """Where the run's files are looked for: where it was begun, or, when that is not on this machine, here."""
    recorded = Path(manifest.get("cwd", "."))
    if recorded.is_dir():
        return recorded
    if notify:
        notify(f"{recorded}, where the run was begun, is not there; its files are looked for in {Path.cwd()}")
    return Path.cwd()


def _config(manifest: dict[str, Any], config: RunConfig, *, replay: bool, runs_dir: str | Path | None) -> RunConfig:
    """The config of the new run. Asking anew, it leaves the cache alone; else it reads the cache that the record names."""
    replace = msgspec.structs.replace
    folder = manifest.get("cache", {}).get("folder")
    cache = Cache(mode="replay", dir=folder or config.cache.dir) if replay else replace(config.cache, mode="off")
    return replace(config, cache=cache, runs_dir=str(runs_dir) if runs_dir else config.runs_dir)


def _announce(experiment: Experiment, record: RunFolder, found: list[Check], notify: Notify) -> None:
    """Say what has changed, and what asking again takes, before anything is sent."""
    for check in found:
        for line in check.lines() if check.drifted else []:
            notify(line)
    if not experiment.owed or experiment.config.cache.mode == "replay":
        return
    before = record.summary()
    cost = f"; the recorded run cost ${before.cost_usd:.4f}" if before and before.cost_usd else ""
    work = expected(experiment.player, experiment.due(), reasks=reasks(experiment.config)).line()
    told = "" if announcement(experiment) else f": {work}"  # where there is a price, it is announced when playing begins
    notify(f"asking {experiment.lm.model} again, past the cache{told}{cost}")


def _name(record: RunFolder) -> str:
    return f"{record.path.parent.name}/{record.path.name}"
