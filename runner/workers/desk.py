"""Grant the attempts of workers: the run's limiters, budgets, ledger and cache, as workers see them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from runner.errors import BudgetExceeded, LMError
from runner.workers.wire import Answer, Closed, Demand, Ended, Failure, Grant, Heard, Judged, Known, Refused, Withdrawn, Wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runner.cache import Entry
    from runner.cost.budget import Reservation
    from runner.limits import Pass
    from runner.lm.lm import LM
    from runner.types import Spent
    from runner.workers.wire import FromHead, Slot


class _Attempt(NamedTuple):
    """Hold what one attempt of a worker has been granted; others that ask the same wait for its flight to land."""

    demand: Demand
    place: Pass
    reserved: Reservation | None
    flight: asyncio.Future[None] | None


class Attempts:
    """The attempts of one worker that have been asked for or granted, and have not ended.

    Args:
        tell: sends a message to the worker.
    """

    def __init__(self, tell: Callable[[FromHead], None]) -> None:
        self.tell = tell
        self.granted: dict[int, _Attempt] = {}
        self.waiting: dict[int, tuple[Slot, asyncio.Task[None]]] = {}
        self.flights: dict[Slot, dict[str, asyncio.Future[None]]] = {}


class Desk:
    """Grant attempts, and settle how they end.

    Args:
        lms: the models, by name; None is the main one. Each has its limiter, its budget and its cache.
        ledger: called with a slot, what it has spent with this attempt, and the model, before an attempt is granted.
        missing_since: when the plan found what the cache lacks.

    Attributes:
        problem: what has kept a demand from being answered, such as a full disk.
    """

    def __init__(
        self,
        lms: Mapping[str | None, LM],
        ledger: Callable[[Slot, Spent, str | None], None],
        missing_since: int | None,
    ) -> None:
        self._lms = lms
        self._ledger = ledger
        self._missing_since = missing_since
        self._flights: dict[str, asyncio.Future[None]] = {}
        self.problem: BaseException | None = None

    def demanded(self, attempts: Attempts, demand: Demand) -> None:
        """Answer a demand: now if that is possible, else in a task. Raises RecordError if the ledger cannot be written."""
        lm = self._lms[demand.model]
        if lm.budget is None and demand.missing and demand.key not in self._flights and self._known(lm, demand) is None:
            assert lm.limiter is not None
            try:
                place = lm.limiter.enter(demand.tokens)
            except LMError as error:
                self._refuse(attempts, demand, error)
                return
            if place is not None:
                self._grant(attempts, demand, _Attempt(demand, place, None, self._take_off(attempts, demand)))
                return
        task = asyncio.create_task(self._later(attempts, lm, demand))
        attempts.waiting[demand.ticket] = demand.slot, task
        task.add_done_callback(lambda task: self._answered(attempts, demand.ticket, task))

    def put(self, puts: Iterable[Answer]) -> None:
        """Store answers, those of each model in one transaction."""
        by_model: dict[str | None, list[Answer]] = {}
        for one in puts:
            by_model.setdefault(one.model, []).append(one)
        for model, ones in by_model.items():
            if (store := self._lms[model].store) is not None:
                store.put_encoded((one.key, one.response, one.request, one.cost_usd) for one in ones)
        for ones in by_model.values():
            for one in ones:
                self._land(one.key)

    def heard(self, attempts: Attempts, message: Heard | Wrong | Ended | Withdrawn) -> LMError | None:
        """Learn from an attempt. Return its error if no other request would fare better."""
        attempt = attempts.granted.get(message.ticket)
        match message:
            case Heard() if attempt is not None:
                attempt.place.hear(message.headers)
            case Wrong():
                error = message.failure.error()
                assert isinstance(error, LMError)
                if attempt is not None:
                    attempt.place.failed(error, 0.0, message.row)
                attempts.tell(Judged(message.ticket, error.disposition))
                return error if error.disposition == "stop" else None
            case Ended() if attempt is not None:
                del attempts.granted[message.ticket]
                self._end(attempt, message)
            case Withdrawn() if message.ticket in attempts.waiting:
                attempts.waiting[message.ticket][1].cancel()
            case _:
                pass
        return None

    def ended(self, attempts: Attempts, slot: Slot) -> None:
        """Grant a slot nothing more, as its spending is in the record, and have nobody wait for its answers any more."""
        for waiting, task in attempts.waiting.values():
            if waiting == slot:
                task.cancel()
        for key, flight in attempts.flights.pop(slot, {}).items():
            self._land(key, flight)

    def lost(self, attempts: Attempts) -> None:
        """Settle the attempts of a worker that is gone: each may have been sent, and counts as using the most that it may use."""
        for _, task in attempts.waiting.values():
            task.cancel()
        for attempt in attempts.granted.values():
            attempt.place.abandoned()
            if attempt.reserved is not None:
                attempt.reserved.settle()
        attempts.granted.clear()
        for slot in list(attempts.flights):
            self.ended(attempts, slot)

    def _end(self, attempt: _Attempt, ended: Ended) -> None:
        if ended.succeeded:
            attempt.place.succeeded(ended.tokens, ended.seconds)
        else:
            attempt.place.abandoned()
        if not ended.kept and attempt.flight is not None:
            self._land(attempt.demand.key, attempt.flight)
        if attempt.reserved is not None:
            attempt.reserved.settle(usd=ended.usd, tokens=ended.used, sent=ended.sent)

    async def _later(self, attempts: Attempts, lm: LM, demand: Demand) -> None:
        """Answer a demand that has to wait: for its turn, or for the same request of another worker."""
        reserved: Reservation | None = None
        flight: asyncio.Future[None] | None = None
        granted = False
        try:
            while (flight := self._flights.get(demand.key)) is not None:
                await asyncio.shield(flight)
            if (entry := self._known(lm, demand)) is not None:
                attempts.tell(Known(demand.ticket, entry.response, entry.cost_usd))
                return
            flight = self._take_off(attempts, demand)
            most = demand.most or {"usd": None, "tokens": None}
            reserved = await lm.budget.reserve(**most) if lm.budget is not None else None
            assert lm.limiter is not None
            place = await lm.limiter.acquire(demand.tokens)
            granted = True
            self._grant(attempts, demand, _Attempt(demand, place, reserved, flight))
        except (LMError, BudgetExceeded) as error:
            self._refuse(attempts, demand, error)
        finally:
            if not granted and reserved is not None:
                reserved.settle(sent=False)
            if not granted and flight is not None:
                self._land(demand.key, flight)

    def _answered(self, attempts: Attempts, ticket: int, task: asyncio.Task[None]) -> None:
        del attempts.waiting[ticket]
        if not task.cancelled() and self.problem is None:
            self.problem = task.exception()

    def _known(self, lm: LM, demand: Demand) -> Entry | None:
        if lm.store is None:
            return None
        return lm.store.get(demand.key, missing_since=self._missing_since if demand.missing else None)

    def _grant(self, attempts: Attempts, demand: Demand, attempt: _Attempt) -> None:
        attempts.granted[demand.ticket] = attempt
        self._ledger(demand.slot, demand.spent, demand.model)
        attempts.tell(Grant(demand.ticket))

    def _take_off(self, attempts: Attempts, demand: Demand) -> asyncio.Future[None] | None:
        """Have others that ask the same wait from now on. Return None if no cache would hand them the answer."""
        store = self._lms[demand.model].store
        if store is None or not (store.reads and store.writes):
            return None
        flight = self._flights[demand.key] = asyncio.get_running_loop().create_future()
        attempts.flights.setdefault(demand.slot, {})[demand.key] = flight
        return flight

    def _refuse(self, attempts: Attempts, demand: Demand, error: LMError | BudgetExceeded) -> None:
        attempts.tell(Refused(demand.ticket, Failure.of(error)))
        if isinstance(error, LMError):
            attempts.tell(Closed(demand.model, Failure.of(error)))

    def _land(self, key: str, flight: asyncio.Future[None] | None = None) -> None:
        """Have nobody wait for the answer of a key any more; given a flight, only if it is the one that they wait for."""
        there = self._flights.get(key)
        if there is not None and flight in (None, there):
            del self._flights[key]
            there.set_result(None)
