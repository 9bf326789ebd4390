"""Correct the mean of an imperfect judge's scores by labels of people, with intervals that contain both samplings.

Two things are drawn: the rows of the run, and those of them that people have labelled. `corrected` chooses the estimator:

- `by_posterior`: scores are verdicts of 0 and 1, and the labels are of answers of this run, drawn at random or by verdict.
- `by_regression`: any scores; labels as above.
- `by_rates`: verdicts, and the labels are of other answers. It assumes that the judge errs as often here as there.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from runner.stats.distributions import beta_quantile, t_critical
from runner.stats.intervals import LEVEL, Interval, effective_samples, share_interval
from runner.stats.units import Spread, mean_and_stderr, spread_of, units_of
from runner.types import Corrected

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

PRIOR = 0.5
"""Added to the counts of either outcome: Jeffreys' prior of a share."""

RARE = 0.2
"""Added to them besides for the variance, because few labels show few of the rare errors: chosen by tests/bench/judged.py."""


class Labelled(NamedTuple):
    """An answer that people have labelled.

    Attributes:
        score: the judge's score.
        label: the score that people gave; the mean of several people.
        weight: how many answers of the run it stands for, up to a factor: the inverse of its chance to be drawn.
        unit: its row or cluster; answers of one unit are not independent.
    """

    score: float
    label: float
    weight: float = 1.0
    unit: Hashable = None


class Rate(NamedTuple):
    """A share, and the number of independent answers that would tell as much about it; of none it is unknown (`n` is 0)."""

    mean: float
    n: float

    def interval(self, level: float = LEVEL) -> Interval:
        """Return the interval of Clopper and Pearson (1934)."""
        hits, tail = self.mean * self.n, (1 - level) / 2
        low = beta_quantile(tail, hits, self.n - hits + 1) if hits > 0 else 0.0
        high = beta_quantile(1 - tail, hits + 1, self.n - hits) if hits < self.n else 1.0
        return low, high


def corrected(
    scores: Sequence[float],
    units: Sequence[Hashable] | None,
    labelled: Sequence[Labelled],
    level: float = LEVEL,
) -> Corrected | None:
    """Correct the mean of `scores` by labels of some of these answers; None for fewer than two labels.

    Args:
        scores: the judge's scores of all answers.
        units: the row or cluster of each; None: all answers are independent.
        labelled: those with a label.
        level: confidence level of the interval.
    """
    if len(labelled) < 2 or not scores:  # noqa: PLR2004
        return None
    verdicts = all(score in (0, 1) for score in scores) and all(0 <= one.label <= 1 for one in labelled)
    return (by_posterior if verdicts else by_regression)(scores, units, labelled, level)


# --- verdicts, and labels of this run


class _Beta(NamedTuple):
    """A Beta distribution."""

    a: float
    b: float

    @property
    def mean(self) -> float:
        return self.a / (self.a + self.b)

    @property
    def variance(self) -> float:
        return self.mean * (1 - self.mean) / (self.a + self.b + 1)

    @property
    def of_mean(self) -> float:
        """The variance of a mean of so many observations, with `RARE` more; `variance` is too sure of errors not yet seen."""
        mean = (self.a + RARE) / (self.a + self.b + 2 * RARE)
        return mean * (1 - mean) / max(1.0, self.a + self.b - 2 * PRIOR)

    @property
    def square(self) -> float:
        """The mean square."""
        return self.mean**2 + self.variance

    @property
    def square_of_rest(self) -> float:
        """The mean square of 1 minus it."""
        return (1 - self.mean) ** 2 + self.variance


def by_posterior(
    scores: Sequence[float], units: Sequence[Hashable] | None, labelled: Sequence[Labelled], level: float = LEVEL
) -> Corrected:
    """Correct verdicts of 0 and 1: the share of verdicts q, and P(right | verdict), have Beta posteriors by Jeffreys' prior.

    The mean is q a + (1 - q) b, with a = P(right | 1) and b = P(right | 0): an estimate after stratification by verdict, which
    needs labels drawn at random within each verdict, so weights by verdict drop out. The interval is that of the Beta
    distribution with the mean and the variance of q a + (1 - q) b. So that it holds for few labels and rare errors, a and b have
    the variance of means of labels (and a little more: `RARE`), raised by the ratio of Student's t to the normal distribution.
    Where rows belong together, counts are effective ones (`runner.stats.intervals.effective_samples`). Nothing is drawn at
    random here. tests/bench/RESULTS.md has its coverage.
    """
    q = _posterior(scores, units)
    a, b = (
        _posterior([one.label for one in some], _units(some))
        for some in ([one for one in labelled if one.score == verdict] for verdict in (1, 0))
    )
    mean = b.mean + q.mean * (a.mean - b.mean)
    few = t_critical(level, max(1, len(labelled) - 2)) / NormalDist().inv_cdf((1 + level) / 2)
    from_labels = few**2 * (q.square * a.of_mean + q.square_of_rest * b.of_mean)
    from_rows = (a.mean - b.mean) ** 2 * q.variance
    size = max(1.0, mean * (1 - mean) / (from_labels + from_rows) - 1)
    tail = (1 - level) / 2
    low, high = (beta_quantile(share, mean * size, (1 - mean) * size) for share in (tail, 1 - tail))
    plain = _stratified(scores, labelled)
    found = mean if plain is None else plain
    return Corrected(
        found,
        (min(low, found), max(high, found)),
        "posterior",
        len(labelled),
        len(scores),
        _more(len(labelled), from_labels, from_rows, len(scores)),
    )


def _posterior(values: Sequence[float], units: Sequence[Hashable] | None) -> _Beta:
    if not values:
        return _Beta(PRIOR, PRIOR)
    found = spread_of(units_of(values, units))
    n = effective_samples(found)
    return _Beta(PRIOR + found.mean * n, PRIOR + (1 - found.mean) * n)


def _stratified(scores: Sequence[float], labelled: Sequence[Labelled]) -> float | None:
    """Return the estimate without a prior; None if a verdict that occurs has no label."""
    total = 0.0
    for verdict in (1, 0):
        share = sum(score == verdict for score in scores) / len(scores)
        labels = [one.label for one in labelled if one.score == verdict]
        if share and not labels:
            return None
        total += share * math.fsum(labels) / len(labels) if share else 0.0
    return total


def _units(labelled: Sequence[Labelled]) -> list[Hashable] | None:
    """Return the units; None if all are independent."""
    units = [one.unit for one in labelled]
    return None if None in units or len(set(units)) == len(units) else units


# --- any scores, and labels of this run


def by_regression(
    scores: Sequence[float], units: Sequence[Hashable] | None, labelled: Sequence[Labelled], level: float = LEVEL
) -> Corrected:
    """Correct any scores: the mean label, plus slope × (the mean score of all answers - that of the labelled ones).

    This is prediction-powered inference with a tuned power (PPI++: Angelopoulos, Duchi & Zrnic 2023, arXiv 2311.01453) of a mean,
    known before as the regression estimator of double sampling (Cochran 1977, "Sampling Techniques", 12.6): with the slope of
    the regression of labels on scores its variance is that of the residuals over the labels, plus slope² × that of the
    scores over all answers. A judge without signal has slope 0, and leaves the labels alone. Weights are respected (Hájek).

    The interval of scores between 0 and 1 is `share_interval` with this variance, that of others is by Student's t.
    """
    slope, mean, residuals = _regression(scores, labelled)
    weight = math.fsum(one.weight for one in labelled)
    groups = _units(labelled)
    parts = units_of([one.weight * rest for one, rest in zip(labelled, residuals, strict=True)], groups)
    few = len(parts) / max(1, len(parts) - 2)  # the slope and the mean are estimated
    from_labels = few * math.fsum(total**2 for total in parts.totals) / weight**2
    _, error = mean_and_stderr(units_of(scores, units))
    from_rows = slope**2 * (error or 0.0) ** 2
    stderr = math.sqrt(from_labels + from_rows)
    if all(0 <= one.label <= 1 for one in labelled) and all(0 <= score <= 1 for score in scores):
        mean = min(1.0, max(0.0, mean))
        size = sum(rows**2 for rows in parts.rows) / len(labelled)
        interval = share_interval(Spread(mean, stderr, len(labelled), len(parts), size), level)
    else:
        margin = t_critical(level, max(1, len(parts) - 2)) * stderr
        interval = mean - margin, mean + margin
    return Corrected(
        mean, interval, "regression", len(labelled), len(scores), _more(len(labelled), from_labels, from_rows, len(scores))
    )


def _regression(scores: Sequence[float], labelled: Sequence[Labelled]) -> tuple[float, float, list[float]]:
    """Return the slope, the corrected mean, and the residual of each labelled answer."""
    weight = math.fsum(one.weight for one in labelled)
    score, label = (math.fsum(one.weight * getattr(one, name) for one in labelled) / weight for name in ("score", "label"))
    spread = math.fsum(one.weight * (one.score - score) ** 2 for one in labelled)
    both = math.fsum(one.weight * (one.score - score) * (one.label - label) for one in labelled)
    slope = both / spread if spread > 0 else 0.0
    mean = label + slope * (math.fsum(scores) / len(scores) - score)
    return slope, mean, [one.label - label - slope * (one.score - score) for one in labelled]


# --- verdicts, and labels of other answers


def rates(labelled: Sequence[Labelled], said: Rate | None = None) -> tuple[Rate, Rate]:
    """Return sensitivity and specificity: how often the judge says 1 of what people call right, and 0 of what they call wrong.

    Answers on which people are divided evenly are left out. If answers were drawn with unequal weights (by verdict), the rates
    come from those of the verdicts, by Bayes' rule, and `n` from the variance of their log odds.

    Args:
        labelled: with scores of 0 and 1.
        said: the share of verdicts of 1 among all answers of the run; needed for unequal weights.
    """
    decided = [one for one in labelled if one.label != 0.5]  # noqa: PLR2004
    if said is not None and len({one.weight for one in decided}) > 1:
        return _rates_by_verdict(decided, said)
    found = []
    for right in (True, False):
        some = [one for one in decided if (one.label > 0.5) == right]  # noqa: PLR2004
        hits = [float((one.score == 1) == right) for one in some]
        spread = spread_of(units_of(hits, _units(some))) if hits else None
        found.append(Rate(spread.mean, effective_samples(spread)) if spread else Rate(0.5, 0.0))
    return found[0], found[1]


def _rates_by_verdict(labelled: Sequence[Labelled], said: Rate) -> tuple[Rate, Rate]:
    q = _Beta(PRIOR + said.mean * said.n, PRIOR + (1 - said.mean) * said.n)
    a, b = (
        _posterior([one.label for one in some], _units(some))
        for some in ([one for one in labelled if one.score == verdict] for verdict in (1, 0))
    )
    odds = q.variance / (q.mean * (1 - q.mean)) ** 2
    found = []
    for one, other, right in ((a, b, True), (b, a, False)):
        share = q.mean if right else 1 - q.mean
        top, rest = (_chance(part, right) for part in (one, other))
        mean = share * top / (share * top + (1 - share) * rest)
        spread = odds + one.variance / top**2 + other.variance / rest**2
        found.append(Rate(mean, 1 / (mean * (1 - mean) * spread)))
    return found[0], found[1]


def _chance(of: _Beta, right: bool) -> float:
    return of.mean if right else 1 - of.mean


def by_rates(
    scores: Sequence[float],
    units: Sequence[Hashable] | None,
    sensitivity: Rate,
    specificity: Rate,
    labels: int,
    level: float = LEVEL,
) -> Corrected:
    """Correct verdicts of 0 and 1 by the judge's sensitivity and specificity, as measured on other answers.

    The estimate is that of Rogan & Gladen (1978), (share of 1 + specificity - 1) / (sensitivity + specificity - 1), cut to 0 and
    1, which Lee et al. (2025, arXiv 2511.21140) propose for judges. Their interval linearises the fraction; this one inverts the
    test of each value (Fieller 1954), with their adjusted counts, and so stays right for judges that tell little.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    found = spread_of(units_of(scores, units))
    share, of_rows = _adjusted(Rate(found.mean, effective_samples(found)), z * z)
    hit, of_hits = _adjusted(sensitivity, 2)
    correct, of_correct = _adjusted(specificity, 2)
    signal = hit + correct - 1
    excess = share - (1 - correct)
    a = signal**2 - z * z * (of_hits + of_correct)
    b = -2 * excess * signal + 2 * z * z * of_correct
    c = excess**2 - z * z * (of_rows + of_correct)
    low, high = 0.0, 1.0
    if a > 0 and signal > 0:  # else every value is possible
        root = math.sqrt(max(0.0, b * b - 4 * a * c))
        low, high = (min(1.0, max(0.0, (-b + sign * root) / (2 * a))) for sign in (-1, 1))
    tells = sensitivity.mean + specificity.mean - 1
    if tells <= 0 or not sensitivity.n or not specificity.n:
        return Corrected(None, (low, high), "rates", labels, len(scores))
    mean = min(1.0, max(0.0, (found.mean + specificity.mean - 1) / tells))
    from_labels = mean**2 * of_hits + (1 - mean) ** 2 * of_correct
    return Corrected(mean, (min(low, mean), max(high, mean)), "rates", labels, len(scores), _more(labels, from_labels, of_rows))


def _adjusted(rate: Rate, more: float) -> tuple[float, float]:
    """Return a share and its variance, with `more` answers added, half of them of either outcome (Agresti & Coull 1998)."""
    n = rate.n + more
    mean = (rate.mean * rate.n + more / 2) / n
    return mean, mean * (1 - mean) / n


def _more(labels: int, from_labels: float, from_rows: float, answers: float = math.inf) -> int | None:
    """Return how many more labels halve the interval: the variance from labels falls with their number, that from rows stays.

    None: not even labels of all `answers` would.
    """
    wanted = (from_labels + from_rows) / 4 - from_rows
    if wanted <= 0 or (most := labels * from_labels / wanted) > answers:
        return None
    return max(1, math.ceil(most) - labels)


# --- which answers to label

ASSUMED = 0.85
"""Sensitivity and specificity of a judge about which nothing is known, for `allocation` alone."""

LEAST = 10
"""Labels that each score gets at least, so that a rate can be seen."""


def allocation(strata: Sequence[tuple[float, int]], labels: int) -> list[int]:
    """Return how many answers of each score to label so that the corrected interval is shortest (Neyman 1934).

    A stratum gets labels in proportion to its size times the standard deviation of its labels. For verdicts of 0 and 1 that is
    taken from a judge of sensitivity and specificity `ASSUMED`; for other scores it is taken to be the same everywhere.

    Args:
        strata: each score that occurs, and its number of answers.
        labels: how many to label in all; no stratum gets more than it has.
    """
    total = sum(size for _, size in strata)
    labels = min(labels, total)
    spreads = [_expected_spread(score, strata, total) for score, _ in strata]
    least = [min(size, LEAST, labels // (2 * len(strata))) for _, size in strata]
    found = list(least)
    while sum(found) < labels:  # the next label goes where it is owed most
        open_ = [index for index, (_, size) in enumerate(strata) if found[index] < size]
        wanted = max(open_, key=lambda index: strata[index][1] * spreads[index] / (found[index] + 1))
        found[wanted] += 1
    return found


def _expected_spread(score: float, strata: Sequence[tuple[float, int]], total: int) -> float:
    if any(value not in (0, 1) for value, _ in strata):
        return 1.0
    said = sum(size for value, size in strata if value == 1) / total
    true = min(0.98, max(0.02, (said + ASSUMED - 1) / (2 * ASSUMED - 1)))
    right, wrong = (true * ASSUMED, (1 - true) * (1 - ASSUMED)) if score == 1 else (true * (1 - ASSUMED), (1 - true) * ASSUMED)
    share = right / (right + wrong)
    return math.sqrt(share * (1 - share))
