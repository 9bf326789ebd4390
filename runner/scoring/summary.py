"""What scores say together: the mean, its standard error, and how many they stand on. Streaming."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from runner.types import Score

if TYPE_CHECKING:
    from collections.abc import Iterable


def summarise(values: Iterable[float]) -> Score:
    """Summarise independent scores, one a row.

    Args:
        values: the scores; they are not kept (Welford's algorithm).

    Returns:
        Mean, standard error (the sample's standard deviation, n - 1 in its denominator, by the root of n; None for n < 2)
        and n. The mean of nothing is None.
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
    """Summarise scores of rows that were repeated: repeats of one row are not independent, the rows are.

    The mean is over all scores. The standard error is clustered by row (Miller 2024, "Adding Error Bars to Evals", with the
    usual factor R / (R - 1) for R rows): with every row repeated as often, it is the standard error of the rows' means, and
    with one score a row it is that of `summarise`. Rows of which some repeats are missing weigh by the repeats they have.

    Args:
        pairs: `(row id, score)` in any order. Two numbers a row are kept.

    Returns:
        Mean, standard error (None for fewer than two rows), and n, the number of rows.
    """
    rows: dict[str, tuple[float, int]] = {}
    for row_id, value in pairs:
        total, count = rows.get(row_id, (0.0, 0))
        rows[row_id] = (total + value, count + 1)
    n = len(rows)
    if n == 0:
        return Score(None, None, 0)
    samples = sum(count for _, count in rows.values())
    mean = math.fsum(total for total, _ in rows.values()) / samples
    if n == 1:
        return Score(mean, None, 1)
    squares = math.fsum((total - count * mean) ** 2 for total, count in rows.values())
    return Score(mean, math.sqrt(n / (n - 1) * squares) / samples, n)
