"""Score the answers of a run again. The answers stay, the scores are new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.batch.entries import status_of
from runner.config.roles import group_of
from runner.errors import ConfigError, RecordError
from runner.experiment.drift import rescored
from runner.experiment.experiment import Experiment, recorded_overrides
from runner.experiment.files import rooted
from runner.experiment.parts import Parts
from runner.experiment.run import RunResult
from runner.records import find_run
from runner.wording.numbers import mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.config.schema import RunConfig
    from runner.records import RunFolder
    from runner.types import Sample


class Change(msgspec.Struct, frozen=True):
    """The change of one score when a run was scored again.

    Attributes:
        before: its mean over the samples that had it; None: none had.
        after: its mean now.
        up: samples whose score is higher now.
        down: samples whose score is lower now.
        gained: samples that have a score now and had none.
        lost: samples that have none now and had one.
    """

    before: float | None
    after: float | None
    up: int = 0
    down: int = 0
    gained: int = 0
    lost: int = 0

    def __str__(self) -> str:
        parts = [f"{count} {name}" for name in ("up", "down", "gained", "lost") if (count := getattr(self, name))]
        return f"{mean(self.before)} -> {mean(self.after)}" + (f" ({', '.join(parts)})" if parts else ", no sample changed")


class Rescored(RunResult, frozen=True):
    """The result of `score`: that of `run`, and what has changed, by score. A score that was not there before is not in it."""

    changes: dict[str, Change] = msgspec.field(default_factory=dict)


def score(run: str | Path, overrides: Sequence[str] = (), *, runs_dir: str | Path = "runs") -> Rescored:
    """Score the answers of a run again, by its own scorers or by those that `overrides` choose. No model is asked.

    Only the scores change in the record, and the scorers in its ``config.yaml``.

    Args:
        run: a run folder, or a run's name as `load` takes it (``latest``, an experiment, ``<experiment>/<stamp>``, a prefix).
        overrides: Hydra overrides of the group `scoring`, such as ``["scoring=f1"]``; none: the run's own scorers.
        runs_dir: where runs are.

    Returns:
        The record, with its new summary, and how the scores have changed.

    Raises:
        RecordError: there is no such run, or its data has changed since.
        ConfigError, DataError: the scorers cannot be built, or the data is gone.
    """
    record = find_run(str(run), Path(runs_dir))
    if not overrides:
        record.refuse_foreign("scored by its own scorers (name one of ours: scoring=exact)")
    record.lock()
    try:
        return _rescored(record, overrides)
    finally:
        record.close()


def _rescored(record: RunFolder, overrides: Sequence[str]) -> Rescored:
    from runner.config.compose import read_run, to_yaml

    manifest, before = record.manifest(), record.summary()
    config = _with_scorers(record, read_run(record.config_file), overrides)
    in_place = rooted(config, manifest)
    experiment = Experiment(in_place, record, recorded_overrides(record), Parts.of(in_place))
    if manifest["data"]["fingerprint"] != experiment.dataset.fingerprint:
        raise RecordError(f"{record.path}: the data has changed since this run began, so its answers cannot be scored again")
    samples, changes = _scored(experiment)
    record.rewrite(samples)
    record.write_config(to_yaml(config))
    record.write_manifest(rescored(manifest, config, in_place))
    if before:
        experiment.restore(before)
    summary = experiment.finish()
    if before and before.status == "interrupted":
        summary = msgspec.structs.replace(summary, status=before.status, problem=before.problem)
        record.write_summary(summary)
    return Rescored(record.path, summary, changes)


def _with_scorers(record: RunFolder, config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return `config` with the scorers and expectations that `overrides` choose. Raises ConfigError for other groups."""
    from runner.config.compose import compose

    if not overrides:
        return config
    if other := [override for override in overrides if group_of(override) not in ("scoring", "expect")]:
        raise ConfigError(
            f"'{other[0]}' does not concern scoring; `ostinato score` only changes the scorers, and what is expected"
        )
    if any(override.startswith("scoring=") for override in overrides):  # another option of the group
        chosen = compose(list(overrides))
    else:  # other values of the recorded option
        chosen = compose(list(overrides), config_name=record.config_file.stem, config_dir=str(record.path))
    groups = {group_of(override) for override in overrides}
    return msgspec.structs.replace(config, **{group: getattr(chosen.config(), group) for group in groups})


def _scored(experiment: Experiment) -> tuple[list[Sample], dict[str, Change]]:
    """Score every sample of the record, count all of them, and return them in the record's order, with what changed."""
    rows = {row.id: row for row in experiment.dataset}
    samples: list[Sample] = []
    pairs: dict[str, list[tuple[float | None, float | None]]] = {}
    for sample, counts in experiment.record.history():
        samples.append(sample)
        if not counts:  # a retry has replaced it, and its cost stays on record
            experiment.tally.superseded(sample)
            continue
        before = sample.scores
        if sample.error is not None and sample.error.code == "scoring":
            sample.status, sample.error = status_of(sample.finish_reason, empty=not sample.output), None
        if sample.id in rows:
            experiment.asker.score(sample, rows[sample.id])
        for name in {*before, *sample.scores}:
            pairs.setdefault(name, []).append((before.get(name), sample.scores.get(name)))
        experiment.count(sample)
    known = {name: found for name, found in pairs.items() if any(was is not None for was, _ in found)}
    return samples, {name: _change(known[name]) for name in experiment.scorers if name in known}


def _change(pairs: Sequence[tuple[float | None, float | None]]) -> Change:
    both = [(was, now) for was, now in pairs if was is not None and now is not None]
    return Change(
        before=_mean([was for was, _ in pairs if was is not None]),
        after=_mean([now for _, now in pairs if now is not None]),
        up=sum(now > was for was, now in both),
        down=sum(now < was for was, now in both),
        gained=sum(was is None for was, _ in pairs),
        lost=sum(now is None for _, now in pairs),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
