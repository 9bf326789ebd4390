"""Independent units, rows or clusters of rows, and the mean over rows with its cluster-robust standard error."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence


class Units:
    """Independent units, rows or clusters of rows, in columns, which take a tenth of the memory of an object for each.

    Attributes:
        totals: the sum of the differences of each unit's rows.
        rows: their number.
    """

    __slots__ = ("rows", "totals")

    def __init__(self, totals: Sequence[float], rows: Sequence[int]) -> None:
        self.totals = totals
        self.rows = rows

    def __len__(self) -> int:
        return len(self.totals)

    def deviations(self, mean: float) -> Iterator[float]:
        """Yield by how much the sum of each unit differs from that of as many means."""
        return (total - rows * mean for total, rows in zip(self.totals, self.rows, strict=True))


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


def units_of(differences: Iterable[float], clusters: Sequence[Hashable] | None = None) -> Units:
    """Return the independent units: every row, or every cluster in order of its first row."""
    if clusters is None:
        values = array("d", differences)
        return Units(values, b"\1" * len(values))  # a byte per row
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(differences, clusters, strict=True):
        members.setdefault(cluster, []).append(value)
    return Units(array("d", map(math.fsum, members.values())), list(map(len, members.values())))


def mean_and_stderr(units: Units) -> tuple[float, float | None]:
    """Return the mean over rows and its cluster-robust standard error (None for one unit).

    With n rows in G units, and u_g the sum of the deviations from the mean in unit g, the standard error is
    sqrt(G / (G - 1) * sum(u_g^2)) / n: the clustered standard error of Miller (2024), with the usual correction
    for few clusters (Cameron & Miller 2015, "A Practitioner's Guide to Cluster-Robust Inference"). With one row per unit
    it is the ordinary standard error of a mean.
    """
    rows = sum(units.rows)
    mean = math.fsum(units.totals) / rows
    if len(units) == 1:
        return mean, None
    squares = math.fsum(value**2 for value in units.deviations(mean))
    return mean, math.sqrt(len(units) / (len(units) - 1) * squares) / rows


def spread_of(units: Units) -> Spread:
    """Return what an interval of the mean is made from. There is at least one unit."""
    mean, stderr = mean_and_stderr(units)
    rows = sum(units.rows)
    return Spread(mean, stderr, rows, len(units), sum(count**2 for count in units.rows) / rows)


def correlation(one: Units, other: Units) -> float:
    """Return the correlation of two means over the same units: that of the units' deviations. 0 if one does not vary."""
    rows = sum(one.rows)
    a, b = (array("d", units.deviations(math.fsum(units.totals) / rows)) for units in (one, other))
    squares = math.fsum(x * x for x in a) * math.fsum(y * y for y in b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(squares) if squares > 0 else 0.0
