"""Whether two runs over the same rows differ in a score by more than chance: the paired interval of their difference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from runner.analysis.distributions import t_critical
from runner.scoring.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LEVEL = 0.95


def row_means(scores: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The mean score of each row over its repeats, from (row id, score) in any order."""
    sums: dict[str, tuple[float, int]] = {}
    for row, value in scores:
        total, count = sums.get(row, (0.0, 0))
        sums[row] = (total + value, count + 1)
    return {row: total / count for row, (total, count) in sums.items()}


def tied(one: Mapping[str, float], other: Mapping[str, float]) -> bool | None:
    """Whether the 95 % interval of the mean difference, paired by row, holds zero.

    The interval is that of `runner.analysis.stats`: Student's t on the rows' differences (Miller 2024, "Adding Error Bars to
    Evals", on paired differences).

    Args:
        one: mean score by row id.
        other: likewise; rows that only one of them has are left out.

    Returns:
        None when fewer than two rows are in both: nothing is known of chance.
    """
    difference = summarise(one[row] - other[row] for row in one if row in other)
    if difference.mean is None or difference.stderr is None:
        return None
    reach = t_critical(LEVEL, difference.n - 1) * difference.stderr
    return abs(difference.mean) <= reach or math.isclose(difference.mean, 0.0, abs_tol=1e-12)
