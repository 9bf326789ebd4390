"""The difference of a score between two runs, corrected for the errors of their judge by labels of people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from runner.analysis.labels import by_person
from runner.records.labels import answer_hash, read_labels
from runner.stats.corrected import Labelled, by_regression

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from runner.analysis.load import Run
    from runner.analysis.pairs import Pairs, Slot
    from runner.types import Corrected

ENOUGH = 20
"""Answers that have to be labelled in both runs for labels to be paired."""


class CorrectedChange(msgspec.Struct, frozen=True):
    """A difference between two runs, corrected by labels.

    Attributes:
        mean_a, mean_b: the corrected scores; None if only the difference is known.
        difference: B - A.
        interval: its interval.
        labels: labelled answers: pairs of them, or of both runs.
        paired: the same rows are labelled in both; else the two corrections are taken for independent, which is wider.
    """

    mean_a: float | None
    mean_b: float | None
    difference: float
    interval: tuple[float, float]
    labels: int
    paired: bool


def corrected_change(pairs: Pairs, name: str, clusters: Mapping[str, Hashable] | None, level: float) -> CorrectedChange | None:
    """Return the corrected difference of the score `name`; None if no labels tell of it.

    Where enough rows are labelled in both runs, the differences of labels are regressed on those of scores
    (`runner.stats.corrected.by_regression`). Else the intervals of both corrected scores are joined (MOVER: Zou & Donner 2008).
    """
    if pairs.a.run is None or pairs.b.run is None:
        return None
    means = [run.summary.corrected.get(name) if run.summary else None for run in (pairs.a.run, pairs.b.run)]
    one, other = means
    labels = _both(pairs.a.run, pairs.b.run, name) if one is not None and other is not None else {}
    scored = {slot: b - a for slot, a, b in pairs.scored(name)} if labels else {}
    found = [
        Labelled(scored[slot], difference, weight, _unit(slot, clusters))
        for slot, (difference, weight) in labels.items()
        if slot in scored
    ]
    if len(found) >= ENOUGH:
        units = [_unit(slot, clusters) for slot in scored]
        result = by_regression(list(scored.values()), units, found, level)
        assert result.mean is not None
        return CorrectedChange(_mean(one), _mean(other), result.mean, result.interval, len(found), paired=True)
    return _apart(one, other)


def _apart(one: Corrected | None, other: Corrected | None) -> CorrectedChange | None:
    if one is None or other is None or one.mean is None or other.mean is None:
        return None
    difference = other.mean - one.mean
    low = difference - math.hypot(other.mean - other.interval[0], one.interval[1] - one.mean)
    high = difference + math.hypot(other.interval[1] - other.mean, one.mean - one.interval[0])
    return CorrectedChange(one.mean, other.mean, difference, (low, high), one.labels + other.labels, paired=False)


def _mean(found: Corrected | None) -> float | None:
    return None if found is None else found.mean


def _unit(slot: Slot, clusters: Mapping[str, Hashable] | None) -> Hashable:
    return slot[0] if clusters is None else clusters.get(slot[0], ("row", slot[0]))


def _both(a: Run, b: Run, name: str) -> dict[Slot, tuple[float, float]]:
    """Return the difference of labels, and the weight, of each sample that is labelled in both."""
    in_a, in_b = (dict(_valid(run, name)) for run in (a, b))
    return {slot: (in_b[slot][0] - in_a[slot][0], max(in_a[slot][1], in_b[slot][1])) for slot in in_a if slot in in_b}


def _valid(run: Run, name: str) -> Iterable[tuple[Slot, tuple[float, float]]]:
    """Yield the mean label and the weight of each sample whose answer is still the one that was labelled."""
    labels = by_person(read_labels(run.folder), name)
    if not labels:
        return
    for sample in run.samples():
        slot = sample.id, sample.repeat
        answer = answer_hash(sample) if slot in labels else ""
        if known := [one for one in labels.get(slot, {}).values() if one.answer == answer]:
            yield slot, (math.fsum(one.value for one in known) / len(known), max(one.weight for one in known))
