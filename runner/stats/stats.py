"""Paired statistics: how much two runs differ on the same rows, and how certain that is. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
import random
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import msgspec

from runner.stats.distributions import even_odds, t_two_sided
from runner.stats.intervals import Interval, difference_interval, interval
from runner.stats.units import Units, mean_and_stderr, spread_of, units_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

Test = Literal["mcnemar", "sign-flip", "t"]

RESAMPLES = 2_000
"""Resamples of a bootstrap interval."""

MAX_RESAMPLED = 5_000
"""Up to this many units are resampled one by one; more are resampled in this many random groups."""

MAX_FLIPPED = 14
"""Up to this many units that differ, every way to flip their signs is tried (2^13 sums)."""


class Paired(msgspec.Struct, frozen=True):
    """A mean difference over rows and its uncertainty; see `paired`.

    Attributes:
        n: rows.
        units: independent units: rows, or clusters of rows.
        mean: the mean difference; None for no rows.
        stderr: its standard error; None for fewer than two units.
        ci: its interval (`runner.stats.intervals`): by Student's t with units - 1 degrees of freedom, and for scores between 0
            and 1 from the intervals of what is gained and lost; None for fewer than two units.
        bootstrap_ci: its bootstrap interval; None for fewer than two units.
        p: the two-sided p-value of no difference; None for no rows.
        test: the test that `p` comes from.
    """

    n: int
    units: int
    mean: float | None = None
    stderr: float | None = None
    ci: Interval | None = None
    bootstrap_ci: Interval | None = None
    p: float | None = None
    test: Test | None = None


def paired(
    differences: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    binary: bool = False,
    bounded: bool = False,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Paired:
    """Test differences between two runs, one per row (repeats of a row are averaged before).

    Pairing by row removes the variance that comes from some rows being harder than others (Miller 2024, "Adding Error Bars to
    Evals": the standard error of the mean of the differences). See `mean_and_stderr`, `p_value`
    and `bootstrap_interval` for the parts.

    Args:
        differences: B - A of each row; finite.
        clusters: the group of each row, where rows of a group are not independent.
        binary: both runs' scores are 0 or 1, so that McNemar's test applies (not to clusters).
        bounded: both runs' scores lie between 0 and 1: see `runner.stats.intervals.difference_interval`.
        level: confidence level of the intervals, 0 < level < 1.
        seed: seed of the bootstrap.
        resamples: of the bootstrap; 0: no bootstrap interval.
    """
    units = units_of(differences, clusters)
    if not units:
        return Paired(0, 0)
    mean, stderr = mean_and_stderr(units)
    p, test = p_value(units, binary=binary and clusters is None)
    if stderr is None:
        return Paired(len(differences), len(units), mean, p=p, test=test)
    if bounded:
        gained, lost = (units_of((max(0.0, sign * one) for one in differences), clusters) for sign in (1, -1))
        ci: Interval | None = difference_interval(gained, lost, level)
    else:
        ci = interval(spread_of(units), bounded=False, level=level)
    bootstrap = bootstrap_interval(units, level=level, resamples=resamples, seed=seed) if resamples else None
    return Paired(len(differences), len(units), mean, stderr, ci, bootstrap, p, test)


def p_value(units: Units, *, binary: bool = False) -> tuple[float, Test]:
    """Return the two-sided p-value of "neither run is better", and the test it comes from.

    - McNemar's exact test of binary scores, whose differences are -1, 0 or 1: see `mcnemar`.
    - The exact sign-flip test where at most `MAX_FLIPPED` units differ (Fisher 1935, "The Design of Experiments", chapter III):
      under the null hypothesis each unit's difference is as likely to have the other sign, so p is the share of all flips whose
      sum is at least as far from zero. It keeps its level for any number of rows; t does not for few.
    - Else the paired t-test with units - 1 degrees of freedom, cluster-robust; never below 2^(1 - units that differ), the
      smallest p that flipping signs can give, so that a difference without variance is not taken for certainty.
    """
    if binary:
        return mcnemar(sum(total > 0 for total in units.totals), sum(total < 0 for total in units.totals)), "mcnemar"
    differ = [total for total in units.totals if total]
    if len(differ) <= MAX_FLIPPED:
        return sign_flip(differ), "sign-flip"
    mean, stderr = mean_and_stderr(units)
    p = t_two_sided(mean / stderr, len(units) - 1) if stderr else 0.0
    return max(p, 2.0 ** (1 - len(differ))), "t"


def mcnemar(gained: int, lost: int) -> float:
    """Return McNemar's exact p-value: of the rows that changed, the gains are heads of a fair coin (two-sided binomial test).

    McNemar (1947), "Note on the sampling error of the difference between correlated proportions", in its exact form.
    """
    return even_odds(gained, gained + lost)


def sign_flip(values: Sequence[float]) -> float:
    """Return the exact two-sided sign-flip p-value over all 2^len(values) flips of signs; by symmetry half are tried."""
    if not values:
        return 1.0
    first, *others = (abs(value) for value in values)
    sums = [first]
    for value in others:
        sums = [one + value for one in sums] + [one - value for one in sums]
    reached = abs(math.fsum(values)) - 1e-9 * math.fsum(map(abs, values))  # sums that are equal but for rounding count
    return sum(abs(one) >= reached for one in sums) / len(sums)


def bootstrap_interval(units: Units, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """Return the BCa (bias-corrected and accelerated) bootstrap interval of the mean over rows; None for fewer than two units.

    Efron (1987), "Better Bootstrap Confidence Intervals"; Efron & Tibshirani (1993), "An Introduction to the Bootstrap",
    chapter 14. Units are drawn with replacement; the acceleration is from the units' influence on the mean. Beyond
    `MAX_RESAMPLED` units, random groups of about equal size are drawn instead, which costs no precision to speak of.

    Args:
        units: see `units_of`.
        level: confidence level of the interval.
        resamples: number of means drawn.
        seed: seed of ``random.Random``: the same units, in the same order, give the same interval everywhere.
    """
    if len(units) < 2:  # noqa: PLR2004
        return None
    rng = random.Random(seed)  # noqa: S311 - it guards nothing
    if len(units) > MAX_RESAMPLED:
        units = _grouped(units, rng)
    mean = math.fsum(units.totals) / sum(units.rows)
    influence = list(units.deviations(mean))
    spread = math.fsum(value * value for value in influence)
    if spread <= (1e-12 * max(map(abs, units.totals))) ** 2 * len(units):
        return mean, mean
    means = sorted(_resampled(units, resamples, rng))
    scale = math.sqrt(spread)
    acceleration = math.fsum((value / scale) ** 3 for value in influence) / 6  # scaled: cubes of tiny differences are zero
    return _bias_corrected(means, mean, acceleration, level)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple tests, so that the chance of any false finding stays below the level. Order is kept.

    Holm (1979), "A simple sequentially rejective multiple test procedure": the i-th smallest of m times m - i + 1, never below
    the one before it, at most 1.
    """
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = least
    return adjusted


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the quantile `q` (0 to 1) of sorted numbers, interpolated linearly (Hyndman & Fan 1996, type 7; numpy's default)."""
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _grouped(units: Units, rng: random.Random) -> Units:
    shuffled = rng.sample(range(len(units)), len(units))
    groups = [shuffled[start::MAX_RESAMPLED] for start in range(MAX_RESAMPLED)]
    totals, rows = units.totals, units.rows
    return Units([math.fsum(totals[at] for at in group) for group in groups], [sum(rows[at] for at in group) for group in groups])


def _resampled(units: Units, resamples: int, rng: random.Random) -> Iterable[float]:
    totals, rows = list(units.totals), units.rows
    if len(set(rows)) == 1:
        return (sum(rng.choices(totals, k=len(totals))) / (len(units) * rows[0]) for _ in range(resamples))
    drawn = (rng.choices(range(len(units)), k=len(units)) for _ in range(resamples))
    return (sum(totals[at] for at in some) / sum(rows[at] for at in some) for some in drawn)


def _bias_corrected(means: Sequence[float], mean: float, acceleration: float, level: float) -> Interval:
    """Return the BCa bounds among sorted `means`; ties with the mean count half on either side."""
    normal = NormalDist()
    slack = 1e-12 * max(abs(means[0]), abs(means[-1]))
    below = (sum(one < mean - slack for one in means) + sum(one <= mean + slack for one in means)) / 2
    share = min(max(below / len(means), 0.5 / len(means)), 1 - 0.5 / len(means))
    bias = normal.inv_cdf(share)

    def bound(q: float) -> float:
        z = bias + normal.inv_cdf(q)
        return quantile(means, normal.cdf(bias + z / (1 - acceleration * z)))

    return bound((1 - level) / 2), bound((1 + level) / 2)
