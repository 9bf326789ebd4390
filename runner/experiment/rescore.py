"""Score the answers of a run again. The answers stay, the scores are new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner import build
from runner.batch.asker import names_of
from runner.batch.engine import ask
from runner.batch.tally import Tally
from runner.config.roles import group_of
from runner.errors import ConfigError, RecordError
from runner.experiment.drift import rescored
from runner.experiment.experiment import Experiment
from runner.experiment.files import rooted
from runner.experiment.parts import Parts
from runner.experiment.recorded import recorded_overrides, unscored
from runner.experiment.run import RunResult
from runner.records import find_run
from runner.session.loop import in_new_loop
from runner.wording.numbers import mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.config.schema import RunConfig
    from runner.records import RunFolder
    from runner.types import Row, Sample


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


def score(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    runs_dir: str | Path = "runs",
    like: str | Path | None = None,
    refresh: bool = False,
) -> Rescored:
    """Score the answers of a run again, by its own scorers or by those that `overrides` choose.

    Only the scores change in the record, and the scorers in its ``config.yaml``. The model that answered is not asked;
    judges are, for what the cache does not have.

    Args:
        run: a run folder, or a run's name as `load` takes it (``latest``, an experiment, ``<experiment>/<stamp>``, a prefix).
        overrides: Hydra overrides of the group `scoring`, such as ``["scoring=f1"]``; none: the run's own scorers.
        runs_dir: where runs are.
        like: a run whose scorers are used, in place of `overrides`.
        refresh: have judges judge again what the cache has their judgements of.

    Returns:
        The record, with its new summary, and how the scores have changed.

    Raises:
        RecordError: there is no such run, or its data has changed since.
        ConfigError, DataError: the scorers cannot be built, or the data is gone.
        LMError, BudgetExceeded: a judge cannot be asked; the record is as it was, and the cache has the judgements so far.
    """
    record = find_run(str(run), Path(runs_dir))
    if not overrides:
        record.refuse_foreign("scored by its own scorers (name one of ours: scoring=exact)")
    record.lock()
    try:
        return _rescored(record, overrides, like=None if like is None else find_run(str(like), Path(runs_dir)), refresh=refresh)
    finally:
        record.close()


def _rescored(record: RunFolder, overrides: Sequence[str], like: RunFolder | None, *, refresh: bool) -> Rescored:
    from runner.config.compose import read_run, to_yaml

    manifest, before = record.manifest(), record.summary()
    config = _with_scorers(record, read_run(record.config_file), overrides)
    if like is not None:
        config = msgspec.structs.replace(config, scoring=read_run(like.config_file).scoring)
    in_place = rooted(config, manifest)
    experiment = Experiment(in_place, record, recorded_overrides(record), Parts.of(in_place))
    if refresh:
        experiment.named.refresh()
    if manifest["data"]["fingerprint"] != experiment.dataset.fingerprint:
        raise RecordError(f"{record.path}: the data has changed since this run began, so its answers cannot be scored again")
    try:
        samples, changes = _scored(experiment)
    except BaseException:
        experiment.close()
        raise
    record.rewrite(samples)
    experiment.spending.settled()
    record.write_config(to_yaml(config))
    record.write_manifest({**rescored(manifest, config, in_place), "models": experiment.named.facts()})
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
    history = list(experiment.record.history())
    if experiment.asker.asks:
        befores = [sample.scores for sample, _ in history]
        _judge(experiment, rows, [sample for sample, counts in history if counts])
    for number, (sample, counts) in enumerate(history):
        samples.append(sample)
        if not counts:  # a retry has replaced it, and its cost stays on record
            experiment.tally.superseded(sample)
            continue
        before = sample.scores
        if experiment.asker.asks:
            before = befores[number]
        elif sample.id in rows:
            experiment.asker.score(unscored(sample), rows[sample.id])
        for name in {*before, *sample.scores}:
            pairs.setdefault(name, []).append((before.get(name), sample.scores.get(name)))
        experiment.count(sample)
    known = {name: found for name, found in pairs.items() if any(was is not None for was, _ in found)}
    names = (name for own, scorer in experiment.scorers.items() for name in names_of(own, scorer) or (own,))
    return samples, {name: _change(known[name]) for name in names if name in known}


def _judge(experiment: Experiment, rows: Mapping[str, Row], samples: Sequence[Sample]) -> None:
    """Have models judge the answers of samples, in place. Judgements that the cache has are not asked again.

    Raises:
        LMError, BudgetExceeded: a model cannot be asked. What it has judged is in the cache.
    """
    slots = [(rows[sample.id], sample.repeat) for sample in samples if sample.id in rows]
    experiment.asker.answered = {(sample.id, sample.repeat): unscored(sample) for sample in samples if sample.id in rows}
    experiment.named.pin(None)
    charged = Tally(0)
    for sample in samples:
        charged.add(sample)
    if experiment.lm.budget is not None:
        for counted in (charged.counted, *charged.counted_named.values()):
            experiment.lm.budget.charge(**counted)
    experiment.named.charge(charged.counted_named)

    async def asked() -> None:
        experiment.named.lend(experiment.lm.budget, build.limiter)
        with experiment.named.using():
            try:
                await experiment.named.launch(lambda _done, _total: None)
                concurrency = experiment.config.limits.max_concurrency
                await ask(experiment.asker, slots, lambda _samples: None, concurrency=concurrency, stop=experiment.stop)
            finally:
                await experiment.named.kill()
                await experiment.aclose()

    try:
        in_new_loop(asked())
    except KeyboardInterrupt:
        experiment.interrupt()
        raise
    if experiment.stop.reason is not None:
        raise experiment.stop.reason


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
