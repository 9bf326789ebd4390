"""The summary of scores: the mean, its standard error, and n. Streaming."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

from runner.types import Score

if TYPE_CHECKING:
    from collections.abc import Iterable


def summarise(values: Iterable[float]) -> Score:
    """Summarise independent scores, one per row.

    Args:
        values: the scores; they are not kept (Welford's algorithm).

    Returns:
        Mean, standard error (the sample standard deviation, with n - 1 in its denominator, over the root of n; None for n < 2)
        and n. The mean of no scores is None.
    """
    n = 0
    mean = squares = 0.0
    for value in values:
        n += 1
        delta = value - mean
        mean += delta / n
        squares += delta * (value - mean)
    if n == 0:
        return Score(None, None, 0)
    return Score(mean, math.sqrt(squares / (n - 1) / n) if n > 1 else None, n)


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
    """The mean over all scores, with a standard error for independent rows whose repeats are not independent.

    The standard error is clustered by row (Miller 2024, "Adding Error Bars to Evals", with the usual factor R / (R - 1) for R
    rows): if every row has as many repeats, it is the standard error of the rows' means; with one score per row it is that of
    `summarise`. Rows are weighted by their number of repeats. Only a few sums are kept, whatever the number of rows. Sums of
    squares use differences from the first score, so that large scores that differ little lose no digits.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._samples = 0
        self._sum = 0.0
        self._origin = 0.0
        self._total = self._squares = self._products = self._weights = 0.0

    def add(self, total: float, count: int) -> None:
        """Add one row: the sum of its scores, and their number (1 or more)."""
        if not self._rows:
            self._origin = total / count
        self._sum += total
        total -= count * self._origin
        self._rows += 1
        self._samples += count
        self._total += total
        self._squares += total * total
        self._products += total * count
        self._weights += count * count

    def score(self, more: Iterable[tuple[float, int]] = ()) -> Score:
        """Summarise: mean, standard error (None for fewer than two rows), and n, the number of rows. The mean of none is None.

        Args:
            more: rows to include in this summary only.
        """
        if more := list(more):
            whole = copy.copy(self)
            for total, count in more:
                whole.add(total, count)
            return whole.score()
        if not self._rows:
            return Score(None, None, 0)
        mean = self._sum / self._samples
        if self._rows == 1:
            return Score(mean, None, 1)
        shift = self._total / self._samples
        squares = max(0.0, self._squares - 2 * shift * self._products + shift * shift * self._weights)
        return Score(mean, math.sqrt(self._rows / (self._rows - 1) * squares) / self._samples, self._rows)
