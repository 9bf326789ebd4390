"""The summary of scores: the mean, its standard error and interval, and n. Streaming."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

from runner.stats.intervals import interval
from runner.stats.units import Spread
from runner.types import Score

if TYPE_CHECKING:
    from collections.abc import Iterable


def summarise(values: Iterable[float]) -> Score:
    """Summarise independent scores, one per row; they are not kept. See `RowMean`."""
    mean = RowMean()
    for value in values:
        mean.add(value, 1)
    return mean.score()


def summarise_by_row(pairs: Iterable[tuple[str, float]]) -> Score:
    """Summarise scores of rows that were repeated, given as `(row id, score)` in any order: see `RowMean`."""
    rows: dict[str, tuple[float, int]] = {}
    for row_id, value in pairs:
        total, count = rows.get(row_id, (0.0, 0))
        rows[row_id] = (total + value, count + 1)
    mean = RowMean()
    for total, count in rows.values():
        mean.add(total, count)
    return mean.score()


class RowMean:
    """The mean over all scores, with an error and an interval. Units are independent: rows with their repeats, or clusters.

    The standard error is clustered by unit (Miller 2024, "Adding Error Bars to Evals", with the usual factor U / (U - 1) for U
    units): if every unit has as many scores, it is the standard error of the units' means; with one score per unit it is the
    sample standard deviation over the root of n. Units are weighted by their number of scores. Only a few sums are kept, whatever
    the number of rows, and one per cluster. Sums of squares use differences from the first score, so that large scores that
    differ little lose no digits. The interval is that of `runner.stats.intervals.interval`.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._units = 0
        self._samples = 0
        self._sum = 0.0
        self._origin = 0.0
        self._total = self._squares = self._products = self._weights = 0.0
        self._bounded = True
        self._clusters: dict[str, tuple[float, int]] = {}

    def add(self, total: float, count: int, cluster: str | None = None, times: int = 1) -> None:
        """Add one row: the sum of its scores, their number (1 or more), and its cluster (None: the row is a unit by itself).

        `times`: how many such rows there are.
        """
        self._rows += times
        self._bounded = self._bounded and 0 <= total <= count
        if cluster is None:
            self._add_unit(total, count, times)
        else:
            before = self._clusters.get(cluster, (0.0, 0))
            self._clusters[cluster] = (before[0] + total * times, before[1] + count * times)

    def _add_unit(self, total: float, count: int, times: int = 1) -> None:
        if not self._units:
            self._origin = total / count
        self._sum += total * times
        total -= count * self._origin
        self._units += times
        self._samples += count * times
        self._total += total * times
        self._squares += total * total * times
        self._products += total * count * times
        self._weights += count * count * times

    def score(self, more: Iterable[tuple[float, int, str | None]] = ()) -> Score:
        """Summarise: mean, standard error (None for fewer than two units), n, the number of rows, and interval.

        The mean of none is None.

        Args:
            more: rows to include in this summary only, as `add` takes them.
        """
        whole = copy.copy(self)
        whole._clusters = dict(self._clusters)  # noqa: SLF001 - its own copy
        for total, count, cluster in more:
            whole.add(total, count, cluster)
        for total, count in whole._clusters.values():  # noqa: SLF001
            whole._add_unit(total, count)  # noqa: SLF001
        return whole._summary()  # noqa: SLF001

    def _summary(self) -> Score:
        if not self._rows:
            return Score(None, None, 0)
        mean = self._sum / self._samples
        stderr = None
        if self._units > 1:
            shift = self._total / self._samples
            squares = max(0.0, self._squares - 2 * shift * self._products + shift * shift * self._weights)
            stderr = math.sqrt(self._units / (self._units - 1) * squares) / self._samples
        spread = Spread(mean, stderr, self._samples, self._units, self._weights / self._samples)
        return Score(mean, stderr, self._rows, interval(spread, bounded=self._bounded))
