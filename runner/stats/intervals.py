"""Confidence intervals of means that cover what they say, also for few rows, near 0 and 1, and in clusters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from runner.stats.distributions import beta_quantile, t_critical
from runner.stats.units import Spread, correlation, spread_of

if TYPE_CHECKING:
    from runner.stats.units import Units

Interval = tuple[float, float]

LEVEL = 0.95
"""Confidence level of the intervals of scores."""

UNSEEN = 2.0
"""Weight of the largest possible spread, in effective samples of the rarer outcome: see `design_effect`."""

ALIKE = 2.0
"""Weight of units whose samples are all alike, in squared effective samples of the rarer outcome: see `design_effect`."""


def interval(found: Spread, *, bounded: bool, level: float = LEVEL) -> Interval | None:
    """Return the confidence interval of a mean score; None if there is none, as of numbers that are not finite.

    Args:
        found: the scores in numbers.
        bounded: every score lies between 0 and 1; see `share_interval`. Others get the interval by Student's t.
        level: confidence level, 0 < level < 1.
    """
    if bounded:
        return share_interval(found, level)
    if found.stderr is None or not math.isfinite(found.mean):
        return None
    margin = t_critical(level, found.units - 1) * found.stderr
    return found.mean - margin, found.mean + margin


def share_interval(found: Spread, level: float = LEVEL) -> Interval:
    """Return the interval of the mean of scores between 0 and 1, by Clopper and Pearson with an effective number of samples.

    For scores of 0 and 1 from independent rows this is the exact interval of Clopper & Pearson (1934), "The use of confidence or
    fiducial limits illustrated in the case of the binomial". Else the number of samples is divided by the design effect, as
    Korn & Graubard (1998), "Confidence intervals for proportions with small expected number of positive counts estimated from
    survey data", do it for clusters, with their factor for the degrees of freedom. Scores between 0 and 1 spread less than
    those of 0 and 1 with the same mean, so that their design effect is below 1. tests/bench/RESULTS.md has the coverage.
    """
    effective = effective_samples(found, level)
    hits = found.mean * effective
    tail = (1 - level) / 2
    lower = beta_quantile(tail, hits, effective - hits + 1) if hits > 0 else 0.0
    upper = beta_quantile(1 - tail, hits + 1, effective - hits) if hits < effective else 1.0
    return min(lower, found.mean), max(upper, found.mean)


def effective_samples(found: Spread, level: float = LEVEL) -> float:
    """Return the number of independent scores of 0 and 1 that would tell as much about the mean.

    In clusters, the degrees of freedom are those of Kish's effective number of clusters (Kish 1965, "Survey Sampling"), which is
    smaller than their number if their sizes differ.
    """
    if found.units == 1:
        return 1.0
    effective = found.samples / design_effect(found)
    if found.units == found.samples:
        return effective
    return effective * (t_critical(level, found.samples - 1) / t_critical(level, _freedom(found))) ** 2


def design_effect(found: Spread) -> float:
    """Return the variance of the mean as a multiple of that of independent scores of 0 and 1 with the same mean.

    What is observed says little while one outcome is rare: 60 scores of 1 have no variance at all. So the observed effect is
    raised towards the largest spread that is possible with this mean, and towards units whose samples are all alike. Both have
    weights that fade as the effective number of samples of the rarer outcome grows.
    """
    spread = found.mean * (1 - found.mean)
    if found.stderr is None or spread <= 0:
        return found.size
    observed = found.stderr**2 * (found.samples - 1) / spread
    rarer = found.samples * min(found.mean, 1 - found.mean) / max(observed, 1.0)
    observed += UNSEEN / (UNSEEN + rarer) * max(0.0, 1 - observed)
    return observed + _alike(rarer) * max(0.0, found.size - observed)


def _alike(rarer: float) -> float:
    return ALIKE / (ALIKE + rarer**2)


def _freedom(found: Spread) -> float:
    return max(1.0, found.samples / found.size - 1)


def difference_interval(gained: Units, lost: Units, level: float = LEVEL) -> Interval:
    """Return the interval of a mean difference, paired by row, of scores between 0 and 1.

    The difference is the mean gain minus the mean loss. Each lies between 0 and 1 and has an interval of its own, by
    `share_interval`; their limits are joined by the method of variance estimates recovery (MOVER: Zou & Donner 2008,
    "Construction of confidence limits about effect measures: a general approach", Statistics in Medicine 27). So runs that do not
    differ in few rows are not taken for equal.

    Args:
        gained: what the second run scores more, by unit: 0 for a row in which it does not.
        lost: what it scores less; the same units.
        level: confidence level, 0 < level < 1.
    """
    up, down = spread_of(gained), spread_of(lost)
    related = correlation(gained, lost)
    (up_low, up_high), (down_low, down_high) = share_interval(up, level), share_interval(down, level)

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one + other * other - 2 * related * one * other))

    mean = up.mean - down.mean
    low = mean - reach(up.mean - up_low, down_high - down.mean)
    high = mean + reach(up_high - up.mean, down.mean - down_low)
    return max(-1.0, low), min(1.0, high)
