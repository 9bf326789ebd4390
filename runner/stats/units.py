"""Independent units, rows or clusters of rows, and the mean over rows with its cluster-robust standard error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


class Unit(NamedTuple):
    """An independent unit, a row or a cluster of rows: the sum of its rows' differences, and their number."""

    total: float
    rows: int


class Spread(NamedTuple):
    """Numbers that an interval is made from.

    Attributes:
        mean: the mean over samples.
        stderr: its standard error, robust to clusters; None for one unit.
        samples: scores behind the mean.
        units: independent units: rows, or clusters of rows. The repeats of a row are in one unit.
        size: mean size of the unit that a sample is in: the sum of squared sizes over the number of samples; 1 without clusters.
    """

    mean: float
    stderr: float | None
    samples: int
    units: int
    size: float = 1.0


def units_of(differences: Sequence[float], clusters: Sequence[Hashable] | None = None) -> list[Unit]:
    """Return the independent units: every row, or every cluster in order of its first row."""
    if clusters is None:
        return [Unit(value, 1) for value in differences]
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(differences, clusters, strict=True):
        members.setdefault(cluster, []).append(value)
    return [Unit(math.fsum(values), len(values)) for values in members.values()]


def mean_and_stderr(units: Sequence[Unit]) -> tuple[float, float | None]:
    """Return the mean over rows and its cluster-robust standard error (None for one unit).

    With n rows in G units, and u_g the sum of the deviations from the mean in unit g, the standard error is
    sqrt(G / (G - 1) * sum(u_g^2)) / n: the clustered standard error of Miller (2024), with the usual correction
    for few clusters (Cameron & Miller 2015, "A Practitioner's Guide to Cluster-Robust Inference"). With one row per unit
    it is the ordinary standard error of a mean.
    """
    rows = sum(unit.rows for unit in units)
    mean = math.fsum(unit.total for unit in units) / rows
    if len(units) == 1:
        return mean, None
    squares = math.fsum((unit.total - unit.rows * mean) ** 2 for unit in units)
    return mean, math.sqrt(len(units) / (len(units) - 1) * squares) / rows


def spread_of(units: Sequence[Unit]) -> Spread:
    """Return what an interval of the mean is made from. There is at least one unit."""
    mean, stderr = mean_and_stderr(units)
    rows = sum(unit.rows for unit in units)
    return Spread(mean, stderr, rows, len(units), sum(unit.rows**2 for unit in units) / rows)


def correlation(one: Sequence[Unit], other: Sequence[Unit]) -> float:
    """Return the correlation of two means over the same units: that of the units' deviations. 0 if one does not vary."""
    rows = sum(unit.rows for unit in one)
    a, b = (math.fsum(unit.total for unit in units) / rows for units in (one, other))
    pairs = [(x.total - x.rows * a, y.total - y.rows * b) for x, y in zip(one, other, strict=True)]
    squares = math.fsum(x * x for x, _ in pairs) * math.fsum(y * y for _, y in pairs)
    return math.fsum(x * y for x, y in pairs) / math.sqrt(squares) if squares > 0 else 0.0
