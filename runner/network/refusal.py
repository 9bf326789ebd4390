"""Classify a server's refusal by one table of HTTP status and words, and parse how long to wait."""

from __future__ import annotations

import contextlib
import email.utils
import math
import re
import time
from typing import TYPE_CHECKING

from runner.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextWindowError,
    LMError,
    LMTimeoutError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitError,
    ServerError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_CREDIT = re.compile(r"insufficient_quota|credit balance|out of credits|billing_(?:hard_limit|not_active)", re.IGNORECASE)
_QUOTA = re.compile(r"exceeded your current quota|per.?day|daily", re.IGNORECASE)
_PER_MINUTE = re.compile(r"per.?min", re.IGNORECASE)  # Gemini says "exceeded your current quota" for limits per minute too
_CONTEXT = re.compile(
    r"context.?(length|window|size)|exceed_context_size|maximum context|prompt is too long|too many tokens|input is too long",
    re.IGNORECASE,
)
_FILTER = re.compile(r"content.?(filter|policy)|responsible.?ai|safety system", re.IGNORECASE)

_BY_STATUS: dict[int, type[LMError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: QuotaError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: NotFoundError,
    408: LMTimeoutError,
    409: ServerError,
    413: ContextWindowError,
    422: BadRequestError,
    425: ServerError,
    429: RateLimitError,
    504: LMTimeoutError,
}


def classify(status: int | None, message: str) -> type[LMError]:
    """Return the class of a failure, by HTTP status and the server's words (some servers use 400 or 429 for everything)."""
    if status is None:
        return TransportError
    if status in (400, 403, 429) and _CREDIT.search(message):
        return QuotaError
    if status == 429 and _QUOTA.search(message) and not _PER_MINUTE.search(message):  # noqa: PLR2004
        return QuotaError
    if status in (400, 413, 422) and _CONTEXT.search(message):
        return ContextWindowError
    if status in (400, 403) and _FILTER.search(message):
        return ContentFilterError
    return _BY_STATUS.get(status, BadRequestError if status < 500 else ServerError)  # noqa: PLR2004


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date, RFC 9110 section 10.2.3)."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(ValueError):
            seconds = float(headers.get(name, "")) / unit
            if not math.isnan(seconds):
                return max(0.0, seconds)
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, OverflowError):  # not a date, or one out of range
        return None
