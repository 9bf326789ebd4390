"""Parse the rate-limit headers of OpenAI, Anthropic and the IETF draft.

OpenAI: ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``, reset as ``6m0s`` or ``120ms`` (platform.openai.com, "Rate
limits"). Anthropic: ``anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}``, reset in RFC 3339. IETF:
``ratelimit-{limit,remaining,reset}``, reset in seconds (draft-ietf-httpapi-ratelimit-headers, until version 6); others add
``x-`` and give the reset as seconds since 1970.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPENAI, _ANTHROPIC = "x-ratelimit-{}-{}", "anthropic-ratelimit-{1}-{0}"


def _names(pattern: str, kind: str = "") -> tuple[str, str, str]:
    return pattern.format("remaining", kind), pattern.format("limit", kind), pattern.format("reset", kind)


REQUESTS = (
    _names(_OPENAI, "requests"),
    _names(_ANTHROPIC, "requests"),
    _names("ratelimit-{}"),
    _names("x-ratelimit-{}"),
)
TOKENS = (_names(_OPENAI, "tokens"), _names(_ANTHROPIC, "tokens"))
REMAINING = frozenset(remaining for remaining, _, _ in (*REQUESTS, *TOKENS))
"""Headers without which an answer says nothing of limits."""
_SINCE_1970 = 1e9
_MILLISECONDS_SINCE_1970 = 1e12
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Told(NamedTuple):
    """One limit, as headers report it. None is unknown.

    Attributes:
        remaining: units left.
        limit: units per period of the server.
        reset_s: seconds until the limit is available in full again.
    """

    remaining: float
    limit: float | None
    reset_s: float | None


def told(headers: Mapping[str, str], names: tuple[tuple[str, str, str], ...], wall: float) -> Told | None:
    """Return the limit that `headers` (names in lower case) report under one of `names`; None if they report none.

    Args:
        headers: of an answer or a refusal.
        names: REQUESTS or TOKENS.
        wall: seconds since 1970, for servers that send the time of the reset and not the time until it.
    """
    for remaining_name, limit_name, reset_name in names:
        if (text := headers.get(remaining_name)) is None or (remaining := _number(text)) is None:
            continue
        limit = _number(headers.get(limit_name, ""))
        return Told(max(0.0, remaining), limit or None, _seconds(headers.get(reset_name, ""), wall))
    return None


def _number(text: str) -> float | None:
    """Return the first number of a header such as ``100`` or ``100, 100;w=60``; None if it has none."""
    try:
        number = float(text.partition(",")[0].partition(";")[0])
    except ValueError:
        return None
    return number if 0 <= number < _MILLISECONDS_SINCE_1970 * 10 else None  # excludes NaN


def _seconds(text: str, wall: float) -> float | None:
    """Return the seconds from `wall` to a reset, in any known notation; None for another one."""
    text = text.strip()
    if (number := _number(text)) is not None:
        if number >= _MILLISECONDS_SINCE_1970:
            number /= 1000
        return max(0.0, number - wall) if number >= _SINCE_1970 else number
    parts = _PARTS.findall(text)
    if parts and "".join(amount + unit for amount, unit in parts) == text:
        return sum(float(amount) * _UNITS[unit] for amount, unit in parts)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, moment.timestamp() - wall)
