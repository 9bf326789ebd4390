"""A sequential test of a mean against a threshold: it may be looked at after every row, and still keeps its error rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 0.75
"""The largest part of the capital that one bet may lose."""


class SequentialTest:
    """Tell whether the mean of scores between 0 and 1 lies above or below a threshold, whenever that is certain.

    Two gamblers bet on the next score, one that the mean is above the threshold, one that it is below. If it is not, a gambler's
    capital is a nonnegative martingale, or falls, and ever reaches 1 / alpha with a probability of at most alpha (Ville's
    inequality), however often one looks. The bets are those of approximate growth rate adaptive to the particular alternative,
    "aGRAPA": Waudby-Smith & Ramdas (2024), "Estimating means of bounded random variables by betting", Journal of the Royal
    Statistical Society B 86, appendix B.3 (arXiv 2010.09686). Scores have to come in an order that does not depend on them.

    Args:
        threshold: between 0 and 1.
        alpha: the error rate on each side, 0 < alpha < 1.

    Attributes:
        above: whether the mean is certainly above the threshold; `below` likewise. Once True, they stay so.
        n: scores seen.
    """

    def __init__(self, threshold: float, alpha: float = 0.025) -> None:
        self.threshold = threshold
        self.above = self.below = False
        self.n = 0
        self._bar = math.log(1 / alpha)
        self._up = self._down = 0.0
        self._sum = 0.5
        self._squares = 0.25

    def add(self, score: float) -> None:
        """Take the next score, between 0 and 1."""
        centre, bet = score - self.threshold, self._bet()
        most_up = MOST / max(self.threshold, 1e-12)
        most_down = MOST / max(1 - self.threshold, 1e-12)
        self._up += math.log1p(min(max(bet, 0.0), most_up) * centre)
        self._down += math.log1p(-min(max(-bet, 0.0), most_down) * centre)
        self.above = self.above or self._up >= self._bar
        self.below = self.below or self._down >= self._bar
        self.n += 1
        self._sum += score
        self._squares += (score - self._sum / (self.n + 1)) ** 2

    def _bet(self) -> float:
        """Return the part of the capital to bet, by the scores before this one."""
        gap = self._sum / (self.n + 1) - self.threshold
        return gap / (self._squares / (self.n + 1) + gap * gap)


def sequence_interval(scores: Sequence[float], alpha: float = 0.05) -> tuple[float, float]:
    """Return the interval of thresholds that `SequentialTest` does not exclude: a confidence sequence at its present length.

    It covers the mean with probability 1 - alpha whenever one stops, and is wider than the interval for a fixed number of rows.

    Args:
        scores: between 0 and 1, in the order in which they came; one or more.
        alpha: half of it on each side.
    """
    mean = math.fsum(scores) / len(scores)

    def excluded(threshold: float, *, above: bool) -> bool:
        test = SequentialTest(threshold, alpha / 2)
        for score in scores:
            test.add(score)
        return test.above if above else test.below

    def end(outer: float, *, above: bool) -> float:
        inner = mean
        if not excluded(outer, above=above):
            return outer
        while abs(inner - outer) > 1e-4:  # noqa: PLR2004
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if excluded(middle, above=above) else (middle, outer)
        return outer

    return end(0.0, above=True), end(1.0, above=False)
