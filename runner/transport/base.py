"""The transport interface, and the one table that turns a server's refusal into an error class."""

from __future__ import annotations

import contextlib
import email.utils
import math
import re
import time
from typing import TYPE_CHECKING, Protocol, TypeAlias

from runner.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextWindowError,
    LMError,
    LMTimeoutError,
    MalformedError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitError,
    ServerError,
    TransportError,
)
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.types import Connection, Request, Response


Hear: TypeAlias = "Callable[[Mapping[str, str]], None]"


class Transport(Protocol):
    """Sends one request, once, and returns the answer. Retries, limits and the cache are none of its business.

    Both verbs raise LMError (and nothing else) when there is no answer. `hear` is told the headers of what came back, a refusal
    too: servers say there how much more they allow.
    """

    def prepare(self, request: Request, connection: Connection) -> None:
        """Load what asking needs. The first time may take seconds, which are not to count as the server's."""

    def complete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Ask and wait."""

    async def acomplete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Ask without blocking the event loop."""

    async def aclose(self) -> None:
        """Close the connections that calls in this event loop have left open; the last thing to do in a loop."""


_CREDIT = re.compile(r"insufficient_quota|credit balance|out of credits|billing_(?:hard_limit|not_active)", re.IGNORECASE)
_QUOTA = re.compile(r"exceeded your current quota|per.?day|daily", re.IGNORECASE)
_PER_MINUTE = re.compile(r"per.?min", re.IGNORECASE)  # Gemini says "exceeded your current quota" of its limits per minute too
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

_ADVICE: dict[type[LMError], str] = {
    TransportError: "nothing answers there; check that the server runs, and model.api_base",
    AuthenticationError: "the key was refused; check the environment variable that `model.api_key_env` names",
    PermissionDeniedError: "this key may not use this model",
    NotFoundError: "no such model or address; check model.name and model.api_base",
    QuotaError: "the quota or credit of this key is used up; nothing more is sent to this endpoint",
}


def classify(status: int | None, message: str) -> type[LMError]:
    """The class of a failure, by HTTP status and the server's words (some servers say everything with 400 or 429)."""
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


def failure(
    status: int | None,
    message: str,
    *,
    request: Request,
    connection: Connection | None = None,
    headers: Mapping[str, str] | None = None,
    kind: type[LMError] | None = None,
) -> LMError:
    """The error for a refused or broken request: classified, cleaned of secrets, with advice where there is some."""
    cls = kind or classify(status, message)
    text = _line(message)[:500]
    if connection and connection.api_base:
        text = f"{redact(connection.api_base)}: {text}"
    if advice := _ADVICE.get(cls):
        text = f"{advice} ({text})"
    headers = headers or {}
    return cls(
        text,
        provider=_provider(request),
        model=request.model,
        status=status,
        request_id=_line(headers.get("x-request-id") or headers.get("request-id") or "") or None,
        retry_after=retry_after(headers),
    )


def malformed(request: Request, why: str) -> MalformedError:
    """The error for an answer that is not one."""
    return MalformedError(
        f"the server's answer cannot be used: {_line(why)[:300]}", provider=_provider(request), model=request.model
    )


def _provider(request: Request) -> str | None:
    return request.model.partition("/")[0] if "/" in request.model else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds asked for by ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date, RFC 9110 section 10.2.3)."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(ValueError):
            seconds = float(headers.get(name, "")) / unit
            if not math.isnan(seconds):
                return max(0.0, seconds)
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, OverflowError):  # no date, or one that no clock can show
        return None


def _line(text: str) -> str:
    """A server's words as one line that can be recorded: without secrets, and with ``?`` for what is no character."""
    return redact(" ".join(text.split())).encode("utf-8", "replace").decode()
