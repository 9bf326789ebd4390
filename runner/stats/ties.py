"""Ties: runs over the same rows whose scores differ by no more than chance, by the test that `compare` uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.stats.stats import p_value
from runner.stats.units import units_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LEVEL = 0.95


def row_means(scores: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the mean score of each row over its repeats, from (row id, score) in any order."""
    sums: dict[str, tuple[float, int]] = {}
    for row, value in scores:
        total, count = sums.get(row, (0.0, 0))
        sums[row] = (total + value, count + 1)
    return {row: total / count for row, (total, count) in sums.items()}


def tied(one: Mapping[str, float], other: Mapping[str, float], clusters: Mapping[str, str] | None = None) -> bool | None:
    """Return whether the difference, paired by row, may be chance: `runner.stats.stats.p_value` gives 5 % or more.

    Args:
        one: mean score by row id.
        other: the same; rows that only one of them has are left out.
        clusters: the cluster of each row, where rows of a cluster are not independent; rows without one are.

    Returns:
        None (unknown) if fewer than two rows are in both.
    """
    common = [row for row in one if row in other]
    groups = [(clusters.get(row), row if row not in clusters else None) for row in common] if clusters else None
    units = units_of([one[row] - other[row] for row in common], groups)
    return p_value(units)[0] >= 1 - LEVEL if len(units) > 1 else None
