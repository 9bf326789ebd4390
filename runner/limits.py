"""Manners towards one endpoint: requests in flight, requests and tokens a minute; and the budget of a whole run."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from runner.errors import BudgetExceeded, EndpointClosedError, LMError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MINUTE_S = 60.0
UNREACHED = 3
"""Failures to connect, one after another, after which an address that has never answered counts as wrong."""


class Bucket:
    """A token bucket: `per_minute` units refill evenly, and at most `burst_s` seconds' worth may be taken at once.

    A request larger than what is there takes it into debt, and the next one waits the debt off: so no request waits for ever.
    """

    def __init__(self, per_minute: float, burst_s: float = 1.0) -> None:
        self.rate = per_minute / MINUTE_S
        self.capacity = max(1.0, self.rate * burst_s)
        self._level = self.capacity
        self._at = time.monotonic()

    def take(self, units: float) -> float:
        """Take `units`; returns the seconds to wait before they may be used."""
        now = time.monotonic()
        self._level = min(self.capacity, self._level + (now - self._at) * self.rate)
        self._at = now
        self._level -= units
        return max(0.0, -self._level / self.rate)

    def give_back(self, units: float) -> None:
        """Return units that were taken and not used; fewer than none when more were used than taken."""
        self._level = min(self.capacity, self._level + units)


class Limiter:
    """The gate in front of one endpoint, shared by everything in one event loop that asks it.

    Args:
        max_concurrency: requests in flight at once.
        rpm: requests a minute, or None.
        tpm: tokens a minute, prompt and answer, or None; taken as an estimate before a request and settled after it.
    """

    def __init__(self, max_concurrency: int, *, rpm: int | None = None, tpm: int | None = None) -> None:
        self.max_concurrency = max_concurrency
        self._slots = asyncio.Semaphore(max_concurrency)
        self._requests = Bucket(rpm) if rpm else None
        self._tokens = Bucket(tpm) if tpm else None
        self._closed_by: LMError | None = None
        self._closed = asyncio.Event()
        self._succeeded = False
        self._unreached = 0

    @contextlib.asynccontextmanager
    async def slot(self, estimate: int) -> AsyncIterator[None]:
        """Hold a place among the requests in flight; `estimate` is the tokens the request may use.

        Raises:
            EndpointClosedError: an earlier error closed this endpoint: asking again would fail in the same way.
        """
        async with self._slots:
            self._refuse_when_closed()
            wait = self._requests.take(1) if self._requests else 0.0
            if self._tokens:
                wait = max(wait, self._tokens.take(estimate))
            if wait:
                await self.pause(wait)
            yield

    async def pause(self, seconds: float) -> None:
        """Wait so many seconds, and no longer than the endpoint is open. Raises EndpointClosedError when it is closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        self._refuse_when_closed()

    def close(self, cause: LMError) -> None:
        """Send nothing more: whoever waits here, and whoever comes, is refused with `cause`. What is in flight goes on."""
        self._closed_by = self._closed_by or cause
        self._closed.set()

    def _refuse_when_closed(self) -> None:
        if (cause := self._closed_by) is not None:
            raise EndpointClosedError(cause.message, provider=cause.provider, model=cause.model, status=cause.status) from cause

    def settle(self, estimate: int, used: int | None) -> None:
        """After an answer: correct the estimate by the tokens really used, and note that this endpoint works."""
        self._succeeded = True
        if self._tokens and used is not None:
            self._tokens.give_back(estimate - used)

    def failed(self, error: LMError) -> None:
        """After a failure: one that would meet every row closes the endpoint, so that no other row runs into the same wall.

        A refused request (400) is the endpoint's fault only while nothing has succeeded there; later it is the row's. An address
        that has never answered is closed after a few failures to connect.
        """
        self._unreached = self._unreached + 1 if error.code == "transport" else 0
        never_worked = not self._succeeded
        if error.code in ("bad_request", "transport"):
            if never_worked and (error.code == "bad_request" or self._unreached >= UNREACHED):
                self.close(error)
        elif error.disposition == "stop":
            self.close(error)


class Budget:
    """What a run may use: dollars, tokens, requests. Reserved before a request is sent and settled after it; thread-safe.

    Args:
        usd, tokens, requests: the bounds; None is no bound.
    """

    def __init__(self, *, usd: float | None = None, tokens: int | None = None, requests: int | None = None) -> None:
        self.bounds: dict[str, float | None] = {"usd": usd, "tokens": tokens, "requests": requests}
        self.spent: dict[str, float] = {"usd": 0.0, "tokens": 0, "requests": 0}
        self._reserved: dict[str, float] = {"usd": 0.0, "tokens": 0, "requests": 0}
        self._lock = threading.Lock()

    def reserve(self, *, usd: float | None, tokens: int) -> dict[str, float]:
        """Set aside what one request may use at the most.

        Raises:
            BudgetExceeded: it does not fit any more, or a dollar bound is set and the price is unknown.
        """
        if usd is None and self.bounds["usd"] is not None:
            raise BudgetExceeded(
                "budget.usd is set, but the price of this model is unknown; use budget.tokens or budget.requests"
            )
        asked: dict[str, float] = {"usd": usd or 0.0, "tokens": tokens, "requests": 1}
        with self._lock:
            for name, bound in self.bounds.items():
                if bound is not None and self.spent[name] + self._reserved[name] + asked[name] > bound:
                    raise BudgetExceeded(
                        f"budget.{name}={bound:g} does not allow another request: {self.spent[name]:g} spent, "
                        f"{self._reserved[name]:g} set aside for requests in flight, up to {asked[name]:g} needed; "
                        f"go on with a larger one: ostinato resume RUN budget.{name}=..."
                    )
            for name, amount in asked.items():
                self._reserved[name] += amount
        return asked

    def settle(self, reserved: dict[str, float], *, usd: float | None = None, tokens: int = 0, sent: bool = True) -> None:
        """Turn a reservation into what was really used; `sent=False` when no request went out."""
        with self._lock:
            for name, amount in reserved.items():
                self._reserved[name] -= amount
            self.spent["usd"] += usd or 0.0
            self.spent["tokens"] += tokens
            self.spent["requests"] += 1 if sent else 0
