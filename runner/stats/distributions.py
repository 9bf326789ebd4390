"""Student's t and the binomial, which paired tests need, both from the incomplete beta function."""

from __future__ import annotations

import math
from functools import lru_cache

_TINY = 1e-300
_EPSILON = 1e-16
_MAX_TERMS = 100_000


def beta_share(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), for a, b > 0 and 0 <= x <= 1.

    By its continued fraction (NIST Digital Library of Mathematical Functions, 8.17.22), evaluated by Lentz's method as Thompson
    and Barnett (1986) modified it; on the side of the mean where that converges fast, else by I_x(a, b) = 1 - I_{1-x}(b, a).
    Checked against scipy: a relative error below 1e-9 up to a + b of some 10^5.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_share(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    fraction, upper, lower = 1.0, 1.0, 0.0
    for term in range(_MAX_TERMS):
        m = term // 2
        if term == 0:
            step = 1.0
        elif term % 2 == 0:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        lower = 1 / _away_from_zero(1 + step * lower)
        upper = _away_from_zero(1 + step / upper)
        fraction *= upper * lower
        if abs(1 - upper * lower) < _EPSILON * 10:
            break
    return front * (fraction - 1) / a


def t_two_sided(t: float, df: float) -> float:
    """Return the probability that Student's t with `df` degrees of freedom lies at least as far from 0 as `t`."""
    if math.isinf(t):
        return 0.0
    return beta_share(df / 2, 0.5, df / (df + t * t))


@lru_cache(maxsize=256)
def t_critical(level: float, df: float) -> float:
    """Return the bound that abs(t) with `df` degrees of freedom stays below with probability `level`, 0 < level < 1."""
    high = 1.0
    while t_two_sided(high, df) > 1 - level:
        high *= 2
    low = 0.0
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_two_sided(middle, df) > 1 - level else (low, middle)
    return (low + high) / 2


def beta_quantile(share: float, a: float, b: float) -> float:
    """Return x with I_x(a, b) = `share`, for a, b > 0 and 0 < share < 1, by bisection to 12 digits."""
    low, high = 0.0, 1.0
    while high - low > 1e-12 * max(high, 1e-6):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_share(a, b, middle) < share else (low, middle)
    return (low + high) / 2


def even_odds(k: int, n: int) -> float:
    """Return the exact two-sided p of `k` heads in `n` throws of a fair coin: twice the smaller tail, at most 1."""
    fewer = min(k, n - k)
    if n == 0 or 2 * fewer >= n - 1:  # the middle: the two tails meet
        return 1.0
    return min(1.0, 2 * beta_share(n - fewer, fewer + 1, 0.5))


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
