"""The budget of a run: dollars, tokens and requests, reserved before a request is sent and settled after it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal, TypeAlias

from runner.errors import BudgetExceeded, EndpointClosedError

if TYPE_CHECKING:
    from runner.errors import LMError

_Amounts: TypeAlias = dict[str, float]

_ROUNDING = 1e-9
"""Dollars are floats: three times 0.1 is not more than 0.3."""


class Reservation:
    """The most that one request may use, reserved by `Budget.reserve`. Settle it exactly once."""

    __slots__ = ("_amounts", "_budget", "_open", "within")

    def __init__(self, budget: Budget, amounts: _Amounts) -> None:
        self.within: Reservation | None = None
        self._budget = budget
        self._amounts = amounts
        self._open = True

    def settle(self, *, usd: float | None = None, tokens: int | None = None, sent: bool = True) -> None:
        """Count what was really used, and release the rest to waiting requests. Does nothing the second time.

        Args:
            usd: dollars; None (unknown) counts all that was reserved.
            tokens: prompt and answer; None (unknown) counts all that was reserved.
            sent: False if no request was sent: nothing is counted.
        """
        if self._open:
            self._open = False
            used = {
                "usd": self._amounts["usd"] if usd is None else max(0.0, usd),
                "tokens": self._amounts["tokens"] if tokens is None else max(0, tokens),
                "requests": 1,
            }
            self._budget._settled(self._amounts, used if sent else _nothing())  # noqa: SLF001 - the two belong together
            if self.within is not None:
                self.within.settle(usd=usd, tokens=tokens, sent=sent)


class Budget:
    """The bounds of what a run may use, over all its threads and event loops.

    A request whose reservation does not fit waits for the requests in flight, first come, first served: these usually use less
    than they reserved. Spending never exceeds a bound, as long as no request uses more than it has reserved.

    Args:
        usd, tokens, requests: the bounds (US dollars; tokens of prompts and answers; attempts sent); None is no bound.
        unknown_price: what a dollar bound does with a request whose price is unknown: ``refuse`` it, or ``allow`` it uncounted.
        key: the config's name of the budget, for messages.
        within: the whole that this budget is a part of: a request has to fit in both.

    Attributes:
        more: how to get a larger one, for messages; ``{bound}`` is the name of the bound.
    """

    def __init__(
        self,
        *,
        usd: float | None = None,
        tokens: int | None = None,
        requests: int | None = None,
        unknown_price: Literal["refuse", "allow"] = "refuse",
        key: str = "budget",
        within: Budget | None = None,
    ) -> None:
        self.key = key
        self.within = within
        self.more = "make a larger one: Budget({bound}=...)"
        self.bounds: dict[str, float | None] = {"usd": usd, "tokens": tokens, "requests": requests}
        self.unknown_price = unknown_price
        self._spent = _nothing()
        self._reserved = _nothing()
        self._in_flight = 0
        self._waiting: deque[tuple[_Amounts, Future[Reservation]]] = deque()
        self._closed_by: LMError | None = None
        self._lock = threading.Lock()

    @property
    def spent(self) -> dict[str, float]:
        """The use so far: ``usd``, ``tokens``, ``requests``. Requests in flight are not included."""
        with self._lock:
            return dict(self._spent)

    @property
    def left(self) -> dict[str, float | None]:
        """The rest of the budget, including reservations of requests in flight; None where there is no bound."""
        spent = self.spent
        return {name: None if bound is None else max(0, bound - spent[name]) for name, bound in self.bounds.items()}

    def charge(self, *, usd: float = 0.0, tokens: int = 0, requests: int = 0) -> None:
        """Count what earlier sittings of the same run have used."""
        with self._lock:
            _add(self._spent, {"usd": usd, "tokens": tokens, "requests": requests})

    async def reserve(self, *, usd: float | None, tokens: int | None) -> Reservation:
        """Reserve the most that one request may use; wait for requests in flight while it does not fit beside them.

        Args:
            usd: dollars; None if the price is unknown.
            tokens: prompt and answer; None if there is no upper bound.

        Raises:
            BudgetExceeded: it does not fit in what is left, or a bound applies to an unknown amount.
            EndpointClosedError: the budget was closed.
        """
        place = self._enter(usd, tokens)
        if not isinstance(place, Reservation):
            try:
                place = await asyncio.wrap_future(waiting := place)
            except BaseException:
                self._leave(waiting)
                raise
        if self.within is not None:
            try:
                place.within = await self.within.reserve(usd=usd, tokens=tokens)
            except BaseException:
                place.settle(sent=False)
                raise
        return place

    def reserve_blocking(self, *, usd: float | None, tokens: int | None) -> Reservation:
        """Do as `reserve`, in a thread without an event loop."""
        place = self._enter(usd, tokens)
        if not isinstance(place, Reservation):
            try:
                place = (waiting := place).result()
            except BaseException:
                self._leave(waiting)
                raise
        if self.within is not None:
            try:
                place.within = self.within.reserve_blocking(usd=usd, tokens=tokens)
            except BaseException:
                place.settle(sent=False)
                raise
        return place

    def close(self, cause: LMError) -> None:
        """Refuse waiting and further requests with `cause`. Requests in flight still settle."""
        with self._lock:
            self._closed_by = self._closed_by or cause
            self._admit()

    def _enter(self, usd: float | None, tokens: int | None) -> Reservation | Future[Reservation]:
        """Return a reservation if it fits, else a place in the queue. Raises as `reserve` does."""
        bounded = [name for name in ("tokens", "usd") if self.bounds[name] is not None]
        if tokens is None and bounded:
            raise BudgetExceeded(
                f"{self.key}.{bounded[0]} is set, but the length of an answer has no known bound; set sampling.max_tokens"
            )
        if usd is None and self.bounds["usd"] is not None and self.unknown_price == "refuse":
            raise BudgetExceeded(
                f"{self.key}.usd is set, but the price of this model is unknown; set model.price, bound {self.key}.tokens or "
                f"{self.key}.requests instead, or do not count it: {self.key}.unknown_price=allow"
            )
        asked: _Amounts = {"usd": usd or 0.0, "tokens": tokens or 0, "requests": 1}
        with self._lock:
            if (refusal := self._refusal(asked)) is not None:
                raise refusal
            if not self._waiting and self._fits(asked):
                return self._take(asked)
            place: Future[Reservation] = Future()
            self._waiting.append((asked, place))
            return place

    def _leave(self, place: Future[Reservation]) -> None:
        """Give up a place in the queue, and the reservation that it may have got at the same moment."""
        if place.cancel():
            with self._lock:
                self._admit()
        elif place.exception() is None:
            place.result().settle(sent=False)

    def _settled(self, reserved: _Amounts, used: _Amounts) -> None:
        with self._lock:
            self._in_flight -= 1
            _add(self._spent, used)
            if self._in_flight:
                _add(self._reserved, {name: -amount for name, amount in reserved.items()})
            else:
                self._reserved = _nothing()  # drops what adding and subtracting floats has left over
            self._admit()

    def _admit(self) -> None:
        """Serve the queue from its head, as far as possible. The caller holds the lock."""
        while self._waiting:
            asked, place = self._waiting[0]
            refusal = self._refusal(asked)
            if refusal is None and not self._fits(asked) and not place.cancelled():
                return
            self._waiting.popleft()
            if not place.set_running_or_notify_cancel():
                continue
            if refusal is not None:
                place.set_exception(refusal)
            else:
                place.set_result(self._take(asked))

    def _take(self, asked: _Amounts) -> Reservation:
        self._in_flight += 1
        _add(self._reserved, asked)
        return Reservation(self, asked)

    def _fits(self, asked: _Amounts) -> bool:
        return all(
            bound is None or self._spent[name] + self._reserved[name] + asked[name] <= bound + _ROUNDING
            for name, bound in self.bounds.items()
        )

    def _refusal(self, asked: _Amounts) -> BudgetExceeded | EndpointClosedError | None:
        """Return why the request can never be allowed, however little those in flight use; None if it can."""
        if (cause := self._closed_by) is not None:
            closed = EndpointClosedError(cause.message, provider=cause.provider, model=cause.model, status=cause.status)
            closed.__cause__ = cause
            return closed
        for name, bound in self.bounds.items():
            if bound is not None and self._spent[name] + asked[name] > bound + _ROUNDING:
                return BudgetExceeded(
                    f"{self.key}.{name}={_said(bound)} does not allow another request: {_said(self._spent[name])} spent, "
                    f"up to {_said(asked[name])} needed; {self.more.format(bound=name)}"
                )
        return None


def _said(amount: float) -> str:
    return f"{amount:.6g}" if isinstance(amount, float) else str(amount)


def _nothing() -> _Amounts:
    return {"usd": 0.0, "tokens": 0, "requests": 0}


def _add(total: _Amounts, more: _Amounts) -> None:
    for name, amount in more.items():
        total[name] += amount
