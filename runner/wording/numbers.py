"""Figures as people read them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.types import Score

Z = 1.96
"""Standard errors on either side of a mean that make an interval of 95 %, by the normal approximation."""


def score(found: Score | None) -> str:
    """The mean, or a dash."""
    return "–" if found is None or found.mean is None else f"{found.mean:.3f}"


def interval(found: Score | None) -> str:
    """The 95 % interval by the normal approximation, and n."""
    if found is None or found.mean is None:
        return "no sample could be scored"
    if found.stderr is None:
        return f"n = {found.n:,}"
    if found.stderr == 0:  # an interval of no width would say that we are certain
        return f"the same for every row, n = {found.n:,}"
    return f"± {Z * found.stderr:.3f} (95 %), n = {found.n:,}"


def count(number: int, what: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """A percentage; one that is not quite all or nothing does not say so."""
    if not whole:
        return "–"
    if 0 < part < whole:
        return f"{min(max(part / whole, 0.001), 0.999):.1%}"
    return f"{part / whole:.0%}"


def dollars(amount: float | None) -> str:
    """US dollars with as many digits as matter."""
    if amount is None:
        return "unknown"
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.3g}" if amount >= 1e-4 else f"${amount:.1e}"  # noqa: PLR2004


def seconds(amount: float | None) -> str:
    """A time in the unit that suits it."""
    if amount is None:
        return "–"
    if amount < 1:
        return f"{amount * 1000:.0f} ms"
    if amount < 120:  # noqa: PLR2004 - up to two minutes people count in seconds
        return f"{amount:.1f} s"
    minutes, rest = divmod(round(amount), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 120 else f"{minutes} min {rest} s"  # noqa: PLR2004


def when(stamp: str | None) -> str:
    """A timestamp to the minute, in UTC."""
    try:
        return datetime.fromisoformat(stamp or "").strftime("%-d %B %Y, %H:%M UTC")
    except ValueError:
        return ""
