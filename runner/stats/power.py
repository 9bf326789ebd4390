"""Power: how many rows a paired comparison needs to find a difference, and which difference a number of rows can find."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHA, POWER = 0.05, 0.8


class Noise(NamedTuple):
    """The variance of a row's difference between two runs.

    Attributes:
        rows: between rows, with no noise of repeats.
        repeats: of one answer to the same row, both runs together: r repeats of each row add `repeats` / r.
    """

    rows: float
    repeats: float

    def of(self, repeats: int) -> float:
        """Return the variance of the difference of a row with so many repeats in both runs."""
        return self.rows + self.repeats / repeats


def rows_needed(variance: float, difference: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """Return the rows that the paired t-test needs, two-sided at level `alpha`, to find `difference` with chance `power`.

    The formula of the normal distribution, with Guenther's correction for Student's t (Guenther 1981, "Sample size formulas for
    normal theory t tests", The American Statistician 35): (z_a + z_b)^2 variance / difference^2 + z_a^2 / 2.
    """
    quantile, reach = _quantiles(alpha, power)
    return max(2, math.ceil(reach**2 * variance / difference**2 + quantile**2 / 2 - 1e-9))


def difference_found(variance: float, rows: int, *, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """Return the smallest difference that so many rows find: the inverse of `rows_needed`. None: they are too few for any."""
    quantile, reach = _quantiles(alpha, power)
    left = rows - quantile**2 / 2
    return reach * math.sqrt(variance / left) if left > 0 else None


def repeats_needed(noise: Noise, difference: float, rows: int, *, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Return the repeats per row with which `rows` rows find `difference`; None: no number of repeats is enough."""
    quantile, reach = _quantiles(alpha, power)
    most = (rows - quantile**2 / 2) * difference**2 / reach**2 - noise.rows
    if most <= 0:
        return None
    return max(1, math.ceil(noise.repeats / most - 1e-9))


def variances(rows: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the variance between rows and within them, from the scores of each row (one-way analysis of variance).

    Rows may have different numbers of repeats, whose harmonic mean is used. Without repeats the second is 0, and the first has
    both. Fewer than two rows have no variance.
    """
    if len(rows) < 2:  # noqa: PLR2004
        return 0.0, 0.0
    means = [math.fsum(scores) / len(scores) for scores in rows]
    middle = math.fsum(means) / len(means)
    between = math.fsum((one - middle) ** 2 for one in means) / (len(means) - 1)
    spare = sum(len(scores) - 1 for scores in rows)
    if not spare:
        return between, 0.0
    within = math.fsum((score - one) ** 2 for scores, one in zip(rows, means, strict=True) for score in scores) / spare
    usual = math.fsum(1 / len(scores) for scores in rows) / len(rows)
    return max(0.0, between - within * usual), within


def _quantiles(alpha: float, power: float) -> tuple[float, float]:
    normal = NormalDist()
    quantile = normal.inv_cdf(1 - alpha / 2)
    return quantile, quantile + normal.inv_cdf(power)
