"""Read how long a server asks to wait: from the headers of a refusal, or from its body."""

from __future__ import annotations

import contextlib
import email.utils
import math
import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADERS = (
    ("retry-after-ms", 1e-3),  # OpenAI, Azure
    ("x-ms-retry-after-ms", 1e-3),  # Azure
    ("llm_provider-retry-after-ms", 1e-3),  # litellm's proxy, which renames the headers of its providers (1.106)
    ("retry-after", 1.0),  # RFC 9110 section 10.2.3
    ("llm_provider-retry-after", 1.0),
)
"""Headers with a number, and their unit in seconds. The first one that is there counts."""
_DATES = ("retry-after", "llm_provider-retry-after")
_FIELDS = {
    "retrydelay": 1.0,  # Google's RetryInfo, "29s"
    "retryafter": 1.0,
    "retryafterseconds": 1.0,
    "retryafterms": 1e-3,
    "estimatedtime": 1.0,  # Hugging Face, while a model is loaded
}
"""Names of fields in a body, in lower case and without ``_`` and ``-``, and their unit in seconds."""
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
_PART = r"\d+(?:\.\d+)?\s*(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])"
_PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*(m(?:illi)?s|[dhms])", re.IGNORECASE)
_DURATION = rf"{_PART}(?:[\s,]*(?:and\s+)?{_PART})*"
_SAID = re.compile(
    rf"\b(?:try(?:\s+\w+){{0,3}}|retry\w*|wait\w*|available|resets?)\b[^.;\n\d]{{0,40}}?\s(?P<time>{_DURATION})", re.IGNORECASE
)
_BARE = re.compile(r"\bretry[ _-]?after\b[\"':=\s]{1,4}(?P<seconds>\d+(?:\.\d+)?)(?![\w.:-])", re.IGNORECASE)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that headers (names in lower case) ask to wait: a number, or an HTTP date; None if they ask for none."""
    for name, unit in _HEADERS:
        with contextlib.suppress(ValueError):
            seconds = float(headers.get(name, "")) * unit
            if not math.isnan(seconds):
                return max(0.0, seconds)
    for name in _DATES:
        with contextlib.suppress(ValueError, OverflowError):  # not a date, or one out of range
            return max(0.0, email.utils.parsedate_to_datetime(headers.get(name, "")).timestamp() - time.time())
    return None


def in_words(text: str) -> float | None:
    """Return the seconds that a message asks to wait ("try again in 1m3.2s", "retry after 9 seconds"); None if there are none."""
    if (found := _SAID.search(text)) is not None:
        return _seconds(found["time"])
    if (found := _BARE.search(text)) is not None:
        return float(found["seconds"])
    return None


def in_field(name: str, value: Any) -> float | None:
    """Return the seconds of a field of a body that says how long to wait; None for any other field."""
    unit = _FIELDS.get(name.lower().replace("_", "").replace("-", ""))
    if unit is None or isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return max(0.0, value * unit) if math.isfinite(value) else None
    if not isinstance(value, str):
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value) * unit) if math.isfinite(float(value)) else None
    return _seconds(value)


def _seconds(text: str) -> float | None:
    """Return the seconds of a duration such as ``1h2m3.5s``, ``340ms`` or ``2 minutes``."""
    parts = [(float(amount), unit.lower()) for amount, unit in _PARTS.findall(text)]
    return sum(amount * _UNITS["ms" if unit == "millis" else unit] for amount, unit in parts) if parts else None
