"""Decide whether and when a failed request is retried. Nothing else retries requests.

Retries of litellm and SDKs are off, and Prefect tasks that send requests have ``retries=0``; Prefect retries whole stages
(launch, train).
"""

from __future__ import annotations

import contextlib
import math
import random
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec

from runner.errors import LMError, LMTimeoutError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_sleepless: ContextVar[bool] = ContextVar("ostinato_retry_sleepless", default=False)

MALFORMED_ATTEMPTS = 3
"""Attempts with malformed answers: they usually mean a wrong address, so there are fewer than for a busy server."""

TIMEOUT_ATTEMPTS = 3
"""Attempts that end without an answer in time: each may be billed, and a longer answer needs a longer limit."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """Exponential backoff with full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS 2015).

    Attributes:
        max_attempts: attempts in total, the first included.
        base_s: the bound of the first wait, doubled per attempt, in seconds.
        cap_s: the bound of every wait, in seconds. A Retry-After is obeyed up to `patience_s`.
        patience_s: the longest Retry-After that is obeyed, in seconds; a longer one fails the request.
        deadline_s: seconds for all attempts together; None is no bound.
    """

    max_attempts: int = 8
    base_s: float = 0.5
    cap_s: float = 30.0
    patience_s: float = 300.0
    deadline_s: float | None = None

    def wait(self, error: LMError, attempt: int, elapsed_s: float, *, alike: int | None = None) -> float | None:
        """Return the seconds to wait before attempt `attempt` + 1, or None if `error` is final.

        Args:
            error: the error of attempt `attempt`.
            attempt: how many attempts have been made, from 1.
            elapsed_s: seconds since the first attempt began.
            alike: how many attempts have failed with this error, this one included; default: all of them.
        """
        if error.disposition != "retry" or attempt >= self.max_attempts:
            return None
        if (alike or attempt) >= _most(error):
            return None
        delay = random.uniform(0, min(self.cap_s, self.base_s * 2 ** (attempt - 1)))  # noqa: S311 - jitter
        if error.retry_after is not None:
            if error.retry_after > self.patience_s:
                return None
            delay = error.retry_after + delay
        if self.deadline_s is not None and elapsed_s + delay >= self.deadline_s:
            return None
        return 0.0 if _sleepless.get() else delay


def _most(error: LMError) -> float:
    """Return how many attempts may fail with an error."""
    if isinstance(error, MalformedError):
        return MALFORMED_ATTEMPTS
    return TIMEOUT_ATTEMPTS if isinstance(error, LMTimeoutError) and error.sent else math.inf


@contextlib.contextmanager
def without_sleeping() -> Iterator[None]:
    """Wait zero seconds in place of every wait, for tests. The decisions are the same."""
    token = _sleepless.set(True)
    try:
        yield
    finally:
        _sleepless.reset(token)
