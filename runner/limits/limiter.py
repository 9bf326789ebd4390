"""One run's way through an endpoint: its own bound and closing, and all the manners of the endpoint that it shares."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Literal, NoReturn

import msgspec

from runner.errors import EndpointClosedError, LMError
from runner.limits.lane import Lane, Pass
from runner.limits.waiting import TaskWaiter, ThreadWaiter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.limits.endpoint import Endpoint


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """A limiter at this moment, for the progress line; `str` of it is for people.

    Attributes:
        window: requests that may be in flight; None is no bound.
        in_flight, waiting: requests of the whole endpoint.
        last_minute: requests that went out in the last minute.
        rpm: the requests a minute that are allowed, configured or learned; None is no bound.
        paused_s: seconds until something may be sent again.
        state: ``open`` is normal; ``breaker``: the server only fails and is asked once in a while.
        reason: why it is paused or closed.
    """

    window: int | None
    in_flight: int
    waiting: int
    last_minute: int
    rpm: float | None
    paused_s: float
    state: Literal["open", "paused", "breaker", "closed"]
    reason: str = ""

    def __str__(self) -> str:
        parts = [f"{self.in_flight}/{self.window} in flight" if self.window is not None else f"{self.in_flight} in flight"]
        if self.state == "paused":
            parts.append(f"paused {math.ceil(self.paused_s)} s ({self.reason})")
        elif self.state == "breaker":
            parts.append("the server fails: trying one at a time")
        elif self.state == "closed":
            parts.append(f"closed ({self.reason})")
        elif self.rpm is not None:
            parts.append(f"{self.last_minute}/{self.rpm:.0f} in the last minute")
        return ", ".join(parts)


class Limiter:
    """What one run, or one LM, holds to ask an endpoint. Thread-safe.

    Args:
        endpoint: from `endpoint_of`; shared by all who ask it.
        max_concurrency: requests in flight at once through this limiter; None leaves it to the endpoint.
        rpm: requests a minute, for the whole endpoint; None leaves it as it is.
        tpm: tokens a minute, prompt and answer, for the whole endpoint; None leaves it as it is. Taken as an estimate, and
            settled with what was used.
        adaptive: False for a server that needs no manners: no window, no pauses, nothing learned and no breaker; only the bounds
            above, and closing.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        max_concurrency: int | None,
        rpm: float | None = None,
        tpm: float | None = None,
        adaptive: bool = True,
    ) -> None:
        self.endpoint = endpoint
        self._lane = Lane(math.inf if max_concurrency is None else max_concurrency, adaptive=adaptive)
        endpoint.add(self._lane, rpm, tpm)

    async def acquire(self, tokens: int = 0) -> Pass:
        """Wait for leave to send one request, first come first served.

        Args:
            tokens: an estimate of what it will use, prompt and answer; 0 when unknown.

        Returns:
            The pass, which must be ended: `Pass.succeeded`, `Pass.failed` or `Pass.abandoned`.

        Raises:
            EndpointClosedError: an earlier error closed this way: asking again would fail in the same way.
        """
        entered = self.endpoint.enter(self._lane, tokens)
        if isinstance(entered, Pass):
            return entered
        if entered is not None:
            _refuse(entered)
        waiter = TaskWaiter(tokens, ring=self.endpoint.ring)
        self.endpoint.queue(self._lane, waiter)
        try:
            await waiter.wait()
        except BaseException:
            self.endpoint.withdraw(self._lane, waiter)
            raise
        return _got(waiter)

    def acquire_blocking(self, tokens: int = 0) -> Pass:
        """As `acquire`, for a thread without an event loop."""
        entered = self.endpoint.enter(self._lane, tokens)
        if isinstance(entered, Pass):
            return entered
        if entered is not None:
            _refuse(entered)
        waiter = ThreadWaiter(tokens, ring=self.endpoint.ring)
        try:
            self.endpoint.queue(self._lane, waiter)
            waiter.wait()
        except BaseException:
            self.endpoint.withdraw(self._lane, waiter)
            raise
        return _got(waiter)

    async def pause(self, seconds: float) -> None:
        """Wait so many seconds, and no longer than the way is open. Raises EndpointClosedError when it is closed."""
        waiter = TaskWaiter()
        self.endpoint.sleep(self._lane, waiter, seconds)
        try:
            await waiter.wait()
        finally:
            self.endpoint.wake_up(self._lane, waiter)
        if waiter.refused_by is not None:
            _refuse(waiter.refused_by)

    def pause_blocking(self, seconds: float) -> None:
        """As `pause`, for a thread without an event loop."""
        waiter = ThreadWaiter()
        try:
            self.endpoint.sleep(self._lane, waiter, seconds)
            waiter.wait()
        finally:
            self.endpoint.wake_up(self._lane, waiter)
        if waiter.refused_by is not None:
            _refuse(waiter.refused_by)

    def hear(self, headers: Mapping[str, str]) -> None:
        """Learn from headers (names in lower case) of which the request is not known; `Pass.hear` learns more from the same."""
        self.endpoint.hear(headers)

    def close(self, cause: LMError) -> None:
        """Send nothing more through this limiter: who waits or comes is refused with `cause`. What is in flight goes on."""
        self.endpoint.close(self._lane, cause)

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Be a user of the endpoint. When it has none, and nothing is in flight, what closed or paused it is forgotten."""
        self.endpoint.join()
        try:
            yield
        finally:
            self.endpoint.leave()

    def now(self) -> Live:
        """The numbers of the moment."""
        return msgspec.convert(self.endpoint.live(self._lane), Live)


def _got(waiter: TaskWaiter | ThreadWaiter) -> Pass:
    if waiter.pass_ is None:
        assert waiter.refused_by is not None
        _refuse(waiter.refused_by)
    return waiter.pass_


def _refuse(cause: LMError) -> NoReturn:
    raise EndpointClosedError(cause.message, provider=cause.provider, model=cause.model, status=cause.status) from cause
