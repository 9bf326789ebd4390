"""The one owner of retries: whether a failed request is tried again, and after how long. Everything below tries once.

litellm and SDK retries are off, Prefect tasks that ask models have ``retries=0``; Prefect retries whole stages (launch, train).
"""

from __future__ import annotations

import contextlib
import random
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec

from runner.errors import LMError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_sleepless: ContextVar[bool] = ContextVar("ostinato_retry_sleepless", default=False)

MALFORMED_ATTEMPTS = 3
"""A body that is not an answer is usually a wrong address, so it is tried less often than a busy server."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """Exponential backoff with full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS 2015).

    Attributes:
        max_attempts: attempts in all, the first included.
        base_s: the bound of the first wait, doubled by each attempt, in seconds.
        cap_s: the bound of every wait, in seconds. A provider's own Retry-After is kept up to `patience_s`.
        patience_s: the longest Retry-After that is waited for; a longer one fails the request.
        deadline_s: seconds for all attempts together; None is no bound.
    """

    max_attempts: int = 8
    base_s: float = 0.5
    cap_s: float = 30.0
    patience_s: float = 300.0
    deadline_s: float | None = None

    def wait(self, error: LMError, attempt: int, elapsed_s: float, *, alike: int | None = None) -> float | None:
        """Seconds to wait before attempt `attempt` + 1, or None when `error` is final.

        Args:
            error: how attempt `attempt` (counted from 1) failed.
            attempt: how many attempts have been made.
            elapsed_s: seconds since the first attempt began.
            alike: how many attempts have failed in this way, this one included; default: all of them.
        """
        if error.disposition != "retry" or attempt >= self.max_attempts:
            return None
        if isinstance(error, MalformedError) and (alike or attempt) >= MALFORMED_ATTEMPTS:
            return None
        delay = random.uniform(0, min(self.cap_s, self.base_s * 2 ** (attempt - 1)))  # noqa: S311 - jitter
        if error.retry_after is not None:
            if error.retry_after > self.patience_s:
                return None
            delay = error.retry_after + delay
        if self.deadline_s is not None and elapsed_s + delay >= self.deadline_s:
            return None
        return 0.0 if _sleepless.get() else delay


@contextlib.contextmanager
def without_sleeping() -> Iterator[None]:
    """Test mode: the same decisions, with waits of zero seconds."""
    token = _sleepless.set(True)
    try:
        yield
    finally:
        _sleepless.reset(token)
