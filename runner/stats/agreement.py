"""How far raters agree: raw agreement, Cohen's kappa and Krippendorff's alpha. Labels that are missing are left out."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

Level = Literal["nominal", "ordinal", "interval"]
"""The scale of labels, which says what their differences mean: nothing more than being different, ranks, or sizes."""


class Agreement(msgspec.Struct, frozen=True):
    """How far the labels of the same units agree.

    Attributes:
        units: units with two labels or more.
        raters: those who have labelled one of these.
        raw: the share of pairs of labels of a unit that are the same; None without a pair.
        alpha: Krippendorff's alpha; None where it is not defined: see `problem`.
        problem: why there is no alpha: no unit has two labels, or all labels are the same, which leaves no chance to disagree.
    """

    units: int
    raters: int
    raw: float | None = None
    alpha: float | None = None
    problem: str | None = None


def agreement(labels: Sequence[Mapping[str, float]], level: Level = "nominal") -> Agreement:
    """Return how far raters agree.

    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": 1 - observed over expected disagreement, where a unit with
    m labels has the weight m, and the expected one is that of all labels that can be paired, in random pairs.

    Args:
        labels: the labels of each unit, by rater; any number of them. For the level ``nominal`` they may be any codes.
        level: see `Level`. The scale of ``ordinal`` consists of the labels that occur.
    """
    paired = [unit for unit in labels if len(unit) > 1]
    raters = {rater for unit in paired for rater in unit}
    if not paired:
        return Agreement(0, len(raters), problem="no unit has labels of two raters")
    counts = [Counter(unit.values()) for unit in paired]
    raw = _same(counts)
    totals = sum(counts, Counter())
    if len(totals) == 1:
        return Agreement(len(paired), len(raters), raw, problem="all labels are the same, so chance is not told from agreement")
    distances = _distances(totals, level)
    observed = math.fsum(_disagreement(unit, distances) / (unit.total() - 1) for unit in counts) / totals.total()
    expected = _disagreement(totals, distances) / totals.total() / (totals.total() - 1)
    return Agreement(len(paired), len(raters), raw, 1 - observed / expected)


def _same(counts: Sequence[Counter[float]]) -> float:
    """Return the share of pairs within units whose labels are the same."""
    same = sum(count * (count - 1) for unit in counts for count in unit.values())
    return same / sum(unit.total() * (unit.total() - 1) for unit in counts)


def _disagreement(counts: Counter[float], distances: Mapping[tuple[float, float], float]) -> float:
    """Return the sum of the distances of all ordered pairs of labels."""
    return math.fsum(counts[one] * counts[other] * distances[one, other] for one in counts for other in counts if one != other)


def _distances(totals: Counter[float], level: Level) -> dict[tuple[float, float], float]:
    """Return the squared distance of each two labels."""
    scale = sorted(totals) if level != "nominal" else list(totals)
    found = {}
    for i, one in enumerate(scale):
        for j, other in enumerate(scale):
            match level:
                case "nominal":
                    distance = 1.0
                case "interval":
                    distance = one - other
                case "ordinal":
                    between = scale[min(i, j) : max(i, j) + 1]
                    distance = sum(totals[label] for label in between) - (totals[one] + totals[other]) / 2
            found[one, other] = distance**2
    return found


def kappa(pairs: Sequence[tuple[Hashable, Hashable]], weights: Sequence[float] | None = None) -> float | None:
    """Return Cohen's kappa (1960) of two raters; None without pairs, or if both always give the same label.

    Args:
        pairs: the two labels of each unit.
        weights: of the units; None: all alike.
    """
    share = weights or [1.0] * len(pairs)
    whole = math.fsum(share)
    if not whole:
        return None
    observed = math.fsum(weight for weight, (one, other) in zip(share, pairs, strict=True) if one == other) / whole
    first: dict[Hashable, float] = {}
    second: dict[Hashable, float] = {}
    for weight, (one, other) in zip(share, pairs, strict=True):
        first[one] = first.get(one, 0.0) + weight
        second[other] = second.get(other, 0.0) + weight
    expected = math.fsum(first[label] * second.get(label, 0.0) for label in first) / whole**2
    return (observed - expected) / (1 - expected) if expected < 1 else None
