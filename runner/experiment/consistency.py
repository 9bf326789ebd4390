"""Ask the judge of a run again about answers that it has judged: how often it says the same. The record stays as it is."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import msgspec

from runner import build
from runner.analysis.calibration import Consistency
from runner.batch.asker import SCORED
from runner.batch.asking import Models
from runner.batch.tally import Tally
from runner.cost.account import Account
from runner.errors import BudgetExceeded, ConfigError, DataError, LMError, RecordError, first_of
from runner.experiment.drift import refuse_changed_files
from runner.experiment.files import rooted
from runner.experiment.parts import Parts
from runner.experiment.recorded import unscored
from runner.session.loop import in_new_loop
from runner.stats.intervals import share_interval
from runner.stats.seeds import seed_of
from runner.stats.units import spread_of, units_of
from runner.types import Spent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runner.batch.asker import Asker
    from runner.experiment.named import NamedModels
    from runner.lm.lent import Complete
    from runner.lm.lm import LM
    from runner.types import Completion, Request, Row, Sample

ROLLOUT = 1 << 32
"""Added to the rollout of a request that is sent again, so that its answer has an entry of its own in the cache."""

_SEED = 0
"""Of the draw: the same answers are drawn each time, so that what was paid for is in the cache."""


def consistency(folder: Path, score: str, count: int) -> Consistency:
    """Have the judge of a score judge some answers of a run again, at its own temperature, and compare.

    Requests go through the run's cache and limits, and within its budget, of which the run has used its part. They differ from
    the first ones in their place in the cache, and in their seed if one is sent.

    Args:
        folder: the run folder.
        score: a score that a model gives.
        count: how many answers are judged again; drawn at random, always the same ones.

    Raises:
        ConfigError: no model gives this score.
        DataError: there is no answer that it has judged.
        RecordError: data or files of the run have changed since.
        LMError, BudgetExceeded, CacheError, LaunchError: the judge cannot be asked; the cache has what it has said so far.
    """
    from runner.config.compose import read_run
    from runner.records import RunFolder

    record = RunFolder.open(folder)
    record.refuse_foreign("judged again")
    manifest = record.manifest()
    config = rooted(read_run(record.config_file), manifest)
    refuse_changed_files(record, config)
    parts = Parts.of(config)
    try:
        if manifest["data"]["fingerprint"] != parts.dataset.fingerprint:
            raise RecordError(f"{folder}: the data has changed since this run began, so its answers cannot be judged again")
        scorer = score.partition(".")[0]
        if scorer not in parts.scorers or not parts.scorers[scorer].asks or parts.named is None:
            raise ConfigError(f"'{score}' is computed, so it is the same each time; --again is for scores that a model gives")
        samples = list(record.samples())
        drawn = _drawn(samples, score, count)
        if not drawn:
            raise DataError(f"{folder.name}: no answer has a score '{score}' that can be asked for again")
        parts.named.as_recorded(manifest.get("models", {}))
        _charge(parts, samples)
        asking = _Asking(parts._replace(scorers={scorer: parts.scorers[scorer]}).asker(), parts.named, parts.dataset)
        in_new_loop(asking.ask(drawn, config.limits.max_concurrency))
    finally:
        parts.close()
        if parts.named is not None:
            parts.named.close()
        if parts.lm.store is not None:
            parts.lm.store.close()
    return _compared(score, drawn, asking)


def _drawn(samples: Iterable[Sample], score: str, count: int) -> list[Sample]:
    """Draw samples whose score a model gave: of those with judgements, if there are any (another score may spare the judge)."""
    scorer = score.partition(".")[0]
    scored = [sample for sample in samples if score in sample.scores and sample.status in SCORED]
    judged = [one for one in scored if any(name.partition(".")[0] == scorer for name in one.judgements or ())]
    found = sorted(judged or scored, key=lambda sample: (sample.id, sample.repeat))
    return random.Random(_SEED).sample(found, min(count, len(found)))  # noqa: S311 - it guards nothing


def _charge(parts: Parts, samples: Iterable[Sample]) -> None:
    """Charge what the run has used to its budget."""
    assert parts.named is not None
    used = Tally(0)
    for sample in samples:
        used.add(sample)
    if parts.lm.budget is not None:
        for counted in (used.counted, *used.counted_named.values()):
            parts.lm.budget.charge(**counted)
    parts.named.charge(used.counted_named)


class _Asking:
    """Judge answers again.

    Attributes:
        judged: by slot, the samples with their new scores; without them where the judge gave no usable verdict.
        spent: what that took.
    """

    def __init__(self, asker: Asker, named: NamedModels, rows: Iterable[Row]) -> None:
        self._asker, self._named = asker, named
        self._rows = {row.id: row for row in rows}
        self.judged: dict[tuple[str, int], Sample] = {}
        self.spent = Spent()
        self._failed: LMError | BudgetExceeded | None = None

    async def ask(self, drawn: Iterable[Sample], concurrency: int) -> None:
        """Ask about each of them. Raises the first error that is not of one answer alone."""
        for lm in self._named.lms.values():
            if isinstance(seed := lm.kwargs.get("seed"), int):
                lm.kwargs["seed"] = seed_of(seed, 1)
        self._named.pin(None)
        self._named.lend(self._asker.lm.budget, build.limiter)
        stream = iter(drawn)

        async def work() -> None:
            for sample in stream:
                if self._failed is not None:
                    return
                try:
                    await self._judge(sample)
                except (LMError, BudgetExceeded) as error:  # what is in flight is finished, since it is paid for
                    self._failed = self._failed or error

        with self._named.using():
            try:
                await self._named.launch(lambda _done, _total: None)
                async with asyncio.TaskGroup() as group:
                    for _ in range(concurrency):
                        group.create_task(work())
            except ExceptionGroup as group_error:
                raise first_of(group_error) from None
            finally:
                await self._named.kill()
                await self._named.aclose()
        if self._failed is not None:
            raise self._failed

    async def _judge(self, sample: Sample) -> None:
        account = Account()
        copy = unscored(msgspec.structs.replace(sample))

        def complete(name: str, lm: LM) -> Complete:
            own = account.of(name)

            async def again(request: Request, _encoded: bytes | None) -> Completion:
                return await lm.acomplete(msgspec.structs.replace(request, rollout=ROLLOUT + (request.rollout or 0)), own)

            return again

        await self._asker.ascore(copy, self._rows[sample.id], Models(self._named.lms, complete))
        self.judged[sample.id, sample.repeat] = copy
        for one in (account.named or {}).values():
            self.spent = self.spent + one.total


def _compared(score: str, drawn: Iterable[Sample], asking: _Asking) -> Consistency:
    pairs = [(sample, asking.judged[sample.id, sample.repeat]) for sample in drawn]
    usable = [(before, after) for before, after in pairs if score in after.scores]
    if not usable:
        raise DataError(
            f"{score}: asked again, the judge gave no usable verdict: {pairs[0][1].error and pairs[0][1].error.message}"
        )
    same = [float(_said(before, score) == _said(after, score)) for before, after in usable]
    found = spread_of(units_of(same, [before.cluster or ("row", before.id) for before, _ in usable]))
    others = {_model(after, score) for _, after in usable} - {_model(before, score) for before, _ in usable}
    return Consistency(
        asked=len(pairs),
        unusable=len(pairs) - len(usable),
        same=found.mean,
        interval=share_interval(found),
        requests=asking.spent.requests,
        cost_usd=asking.spent.cost_usd,
        others=sorted(name for name in others if name is not None),
    )


def _said(sample: Sample, score: str) -> tuple[str | None, float]:
    """Return what a sample's judge said: its label, if it gave one, and its score."""
    judgement = (sample.judgements or {}).get(score)
    return (judgement.label if judgement else None), sample.scores[score]


def _model(sample: Sample, score: str) -> str | None:
    judgement = (sample.judgements or {}).get(score)
    return judgement.model if judgement else None
