"""Write numbers for people: scores, dollars, counts, durations. Nothing else formats these."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.types import Corrected, Score


def score(found: Score | None) -> str:
    """Write the mean of a score, or a dash."""
    return mean(found.mean if found else None)


def score_in_full(found: Score) -> str:
    """Write ``0.800 [0.682, 0.882] (n=60)``: the mean, its 95 % interval and the number of rows."""
    if found.mean is None:
        return "none (no sample could be scored)"
    return f"{mean(found.mean, found.interval)} (n={found.n:,})"


def mean(value: float | None, interval: Sequence[float] | None = None, *, digits: int = 3, unknown: str = "–") -> str:
    """Write ``0.800 [0.682, 0.882]``: a mean and its interval, which is left out when it is None.

    Args:
        value: the mean.
        interval: from and to.
        digits: decimals of all.
        unknown: what stands for a mean that is None.
    """
    if value is None:
        return unknown
    return f"{value:.{digits}f}" + ("" if interval is None else f" {bounds(interval, digits=digits)}")


def change(value: float, interval: Sequence[float] | None = None) -> str:
    """Write ``+0.100 [+0.010, +0.190]``: a difference with its sign, and its interval."""
    return f"{value:+.3f}" + ("" if interval is None else f" {bounds(interval, sign='+')}")


def bounds(found: Sequence[float], *, digits: int = 3, sign: str = "") -> str:
    """Write ``[0.682, 0.882]``: an interval; with `sign` "+", ``[+0.010, +0.190]``."""
    return f"[{found[0]:{sign}.{digits}f}, {found[1]:{sign}.{digits}f}]"


def p_value(p: float) -> str:
    """Write a p-value to three decimals; below 0.001 it says only that."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"  # noqa: PLR2004


def p_equals(p: float) -> str:
    """Write ``p=0.023`` or ``p=<0.001``, for running text."""
    return f"p={p_value(p).replace('< ', '<')}"


_METHODS = {
    "posterior": "labels of this run",
    "regression": "labels of this run",
    "rates": "labels of another run",
}


def corrected(found: Corrected) -> str:
    """Write ``0.781 [0.702, 0.849] (100 labels of this run)``: a corrected mean, its interval, and what it is corrected by."""
    return f"{mean(found.mean, found.interval, unknown='unknown')} ({found.labels:,} {_METHODS[found.method]})"


def interval(found: Score | None) -> str:
    """Write ``[0.682, 0.882] (95 %), n = 60``: the interval of a score, and n."""
    if found is None or found.mean is None:
        return "no sample could be scored"
    if found.interval is None:
        return f"n = {found.n:,}"
    return f"{bounds(found.interval)} (95 %), n = {found.n:,}"


def listed(counts: Mapping[str, int]) -> str:
    """Write `` (server 1, timeout 3)``, or nothing for no counts."""
    return f" ({', '.join(f'{name} {number}' for name, number in sorted(counts.items()))})" if counts else ""


def count(number: int, what: str) -> str:
    """Write ``1 row``, ``2,000 rows``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """Write a percentage; a share below one is never rounded to 100 %, nor one above zero to 0 %."""
    if not whole:
        return "–"
    if 0 < part < whole:
        return f"{min(max(part / whole, 0.001), 0.999):.1%}"
    return f"{part / whole:.0%}"


def dollars(amount: float | None) -> str:
    """Write US dollars: cents from one dollar on, three significant digits below."""
    if amount is None:
        return "unknown"
    if not 0 < abs(amount) < 0.9995:  # noqa: PLR2004 - what rounds to one dollar has cents, too
        return f"${amount:,.2f}"
    decimals = 2 - math.floor(math.log10(abs(amount)))
    return f"${amount:.{decimals}f}".rstrip("0")


def seconds(amount: float | None) -> str:
    """Write a duration: ``12 ms``, ``5.0 s``, ``2 min 5 s``, ``2 h 1 min``."""
    if amount is None:
        return "–"
    if amount < 1:
        return f"{amount * 1000:.0f} ms"
    if amount < 120:  # noqa: PLR2004 - up to two minutes people count in seconds
        return f"{amount:.1f} s"
    minutes, rest = divmod(round(amount), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 120 else f"{minutes} min {rest} s"  # noqa: PLR2004


def about_seconds(amount: float) -> str:
    """Write an estimated duration, roughly: ``40 s``, ``3 min``, ``2.5 h``."""
    if amount < 100:  # noqa: PLR2004
        return f"{amount:.0f} s"
    return f"{amount / 60:.0f} min" if amount < 2 * 3600 else f"{amount / 3600:.1f} h"


def when(stamp: str | None) -> str:
    """Write an ISO timestamp to the minute, in UTC; nothing for what is not a timestamp."""
    try:
        return datetime.fromisoformat(stamp or "").strftime("%-d %B %Y, %H:%M UTC")
    except ValueError:
        return ""
