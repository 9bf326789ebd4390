"""The rate limiter of one run: its own bound and closing, over the endpoint that it shares with others."""

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
    """The current state of a limiter, for the progress line; `str` of it is for people.

    Attributes:
        window: the most requests in flight; None is no bound.
        in_flight, waiting: requests of the whole endpoint.
        last_minute: requests sent in the last minute.
        rpm: the allowed requests per minute, configured or learned; None is no bound.
        paused_s: seconds until requests may be sent again.
        state: ``open`` is normal; ``breaker``: the server fails every request and gets single probes.
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
            parts.append("the server fails: trying one request at a time")
        elif self.state == "closed":
            parts.append(f"closed ({self.reason})")
        elif self.rpm is not None:
            parts.append(f"{self.last_minute}/{self.rpm:.0f} in the last minute")
        return ", ".join(parts)


class Limiter:
    """The rate limiter of one run, or one LM. Thread-safe.

    Args:
        endpoint: from `endpoint_of`; shared by all limiters with the same address and key.
        max_concurrency: requests in flight at once through this limiter; None leaves it to the endpoint.
        rpm: requests per minute, for the whole endpoint; None leaves it as it is.
        tpm: tokens per minute, prompt and answer, for the whole endpoint; None leaves it as it is. Estimated when a request is
            sent, and corrected by what was used.
        adaptive: False for a server that needs no protection: only the bounds above and closing apply, and no window, pauses,
            learned limits or breaker.
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

    def enter(self, tokens: int = 0) -> Pass | None:
        """Return the pass of `acquire` if a request may be sent at once, else None. Raises EndpointClosedError."""
        entered = self.endpoint.enter(self._lane, tokens)
        if isinstance(entered, LMError):
            _refuse(entered)
        return entered

    async def acquire(self, tokens: int = 0) -> Pass:
        """Wait for permission to send one request, first come first served.

        Args:
            tokens: an estimate of its tokens, prompt and answer; 0 if unknown.

        Returns:
            The pass, which must be ended: `Pass.succeeded`, `Pass.failed` or `Pass.abandoned`.

        Raises:
            EndpointClosedError: an earlier error closed the endpoint: this request would fail in the same way.
        """
        if (pass_ := self.enter(tokens)) is not None:
            return pass_
        waiter = TaskWaiter(tokens, ring=self.endpoint.ring)
        self.endpoint.queue(self._lane, waiter)
        try:
            await waiter.wait()
        except BaseException:
            self.endpoint.withdraw(self._lane, waiter)
            raise
        return _got(waiter)

    def acquire_blocking(self, tokens: int = 0) -> Pass:
        """Do as `acquire`, in a thread without an event loop."""
        if (pass_ := self.enter(tokens)) is not None:
            return pass_
        waiter = ThreadWaiter(tokens, ring=self.endpoint.ring)
        try:
            self.endpoint.queue(self._lane, waiter)
            waiter.wait()
        except BaseException:
            self.endpoint.withdraw(self._lane, waiter)
            raise
        return _got(waiter)

    async def pause(self, seconds: float) -> None:
        """Wait `seconds`. Raises EndpointClosedError as soon as the endpoint is closed."""
        waiter = TaskWaiter()
        self.endpoint.sleep(self._lane, waiter, seconds)
        try:
            await waiter.wait()
        finally:
            self.endpoint.wake_up(self._lane, waiter)
        if waiter.refused_by is not None:
            _refuse(waiter.refused_by)

    def pause_blocking(self, seconds: float) -> None:
        """Do as `pause`, in a thread without an event loop."""
        waiter = ThreadWaiter()
        try:
            self.endpoint.sleep(self._lane, waiter, seconds)
            waiter.wait()
        finally:
            self.endpoint.wake_up(self._lane, waiter)
        if waiter.refused_by is not None:
            _refuse(waiter.refused_by)

    def hear(self, headers: Mapping[str, str]) -> None:
        """Learn from headers (names in lower case) of an unknown request; `Pass.hear` learns more from the same ones."""
        self.endpoint.hear(headers)

    def close(self, cause: LMError) -> None:
        """Refuse waiting and further requests of this limiter with `cause`. Requests in flight continue."""
        self.endpoint.close(self._lane, cause)

    def ask_anew(self) -> None:
        """Send requests again if bad ones have closed this limiter: those of another config may be good ones."""
        self.endpoint.ask_anew(self._lane)

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Use the endpoint within the block. Without users and requests in flight, it forgets what closed or paused it."""
        self.endpoint.join()
        try:
            yield
        finally:
            self.endpoint.leave()

    def now(self) -> Live:
        """Return the current state."""
        return msgspec.convert(self.endpoint.live(self._lane), Live)


def _got(waiter: TaskWaiter | ThreadWaiter) -> Pass:
    if waiter.pass_ is None:
        assert waiter.refused_by is not None
        _refuse(waiter.refused_by)
    return waiter.pass_


def _refuse(cause: LMError) -> NoReturn:
    raise EndpointClosedError(cause.message, provider=cause.provider, model=cause.model, status=cause.status) from cause
