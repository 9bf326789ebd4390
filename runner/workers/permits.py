"""Ask the head for each attempt of a worker: its answer stands for limiter, budget, ledger and cache."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from runner.cache import Cache
from runner.errors import EndpointClosedError, LMError
from runner.limits.headers import REQUESTS, TOKENS
from runner.lm.permits import AnsweredElsewhere
from runner.workers.wire import (
    Answer,
    Demand,
    Ended,
    Failure,
    Grant,
    Heard,
    Judged,
    Known,
    Refused,
    Spend,
    Withdrawn,
    Wrong,
    as_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from runner.cache import Entry
    from runner.cache.store import Put
    from runner.cost.account import Account
    from runner.types import Request, Spent
    from runner.workers.wire import FromWorker, Slot

_HEADERS = frozenset(name for names in (*REQUESTS, *TOKENS) for name in names)


class Counter:
    """The side of a worker that the head's answers come to. It lives in the event loop of the worker's rows.

    Args:
        say: sends a message to the head.

    Attributes:
        in_flight: attempts that are permitted and have not ended.
        missing: keys that the plan has not found in the cache.
        closed: what has closed the endpoints of models.
    """

    def __init__(self, say: Callable[[FromWorker], None]) -> None:
        self.say = say
        self.in_flight = 0
        self._stating = False
        self._stated: tuple[Slot, Spent] | None = None
        self.missing: set[str] = set()
        self.closed: dict[str | None, LMError] = {}
        self._sleepers: dict[str | None, set[asyncio.Future[None]]] = {}
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tickets = 0

    def state(self, slot: Slot, spent: Spent, model: str | None) -> None:
        """State what a slot has spent: with the next `Demand`, if one is being made, and else by itself."""
        if self._stating:
            self._stated = slot, spent
        else:
            self.say(Spend(slot, spent, model))

    async def demand(self, model: str | None, key: str, tokens: int, most: Mapping[str, Any] | None, account: Account) -> int:
        """Ask for one attempt, and return its ticket. Raises as `Permits.acquire`."""
        self._stating = True
        try:
            account.sending(most)
        finally:
            self._stating = False
        assert self._stated is not None
        (slot, spent), self._stated = self._stated, None
        ticket = self._tickets = self._tickets + 1
        missing = key in self.missing
        self.missing.discard(key)
        waiting = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self.say(Demand(ticket, slot, model, key, missing, tokens, dict(most) if most else None, spent))
        try:
            answer = await waiting
        except asyncio.CancelledError:
            if waiting.cancelled():
                self.say(Withdrawn(ticket))
            elif isinstance(waiting.result(), Grant):  # it came in the turn of the loop in which the call was cancelled
                self._give_back(ticket)
            raise
        finally:
            del self._waiting[ticket]
        if isinstance(answer, Known):
            raise AnsweredElsewhere(answer.response, answer.cost_usd)
        if isinstance(answer, Refused):
            raise answer.failure.error()
        self.in_flight += 1
        return ticket

    async def judged(self, ticket: int) -> str:
        """Wait for the head's word on a failure, which was sent."""
        waiting = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        try:
            answer: Judged = await waiting
        finally:
            del self._waiting[ticket]
        return answer.disposition

    def heard(self, answer: Grant | Known | Refused | Judged) -> None:
        """Pass on an answer of the head. One that nobody waits for any more is dropped, and a permission is given back."""
        waiting = self._waiting.get(answer.ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
        elif isinstance(answer, Grant):
            self._give_back(answer.ticket)

    def _give_back(self, ticket: int) -> None:
        self.say(Ended(ticket, succeeded=False, kept=False, seconds=0.0, tokens=None, usd=None, used=None, sent=False))

    async def pause(self, model: str | None, seconds: float) -> None:
        """Wait, unless the endpoint is closed. Raises EndpointClosedError then."""
        sleeper = asyncio.get_running_loop().create_future()
        sleepers = self._sleepers.setdefault(model, set())
        sleepers.add(sleeper)
        try:
            if model not in self.closed:
                await asyncio.wait({sleeper}, timeout=seconds)
        finally:
            sleepers.discard(sleeper)
        if (cause := self.closed.get(model)) is not None:
            closed = EndpointClosedError(cause.message, provider=cause.provider, model=cause.model, status=cause.status)
            raise closed from cause

    def close(self, model: str | None, error: LMError) -> None:
        """Have nobody wait to ask a model again."""
        self.closed[model] = error
        for sleeper in self._sleepers.get(model, ()):
            if not sleeper.done():
                sleeper.set_result(None)


class Granted:
    """A permission of the head: see `runner.lm.permits.Permit`."""

    __slots__ = ("_counter", "_ended", "_kept", "_seconds", "_succeeded", "_ticket", "_tokens", "_wrong")

    def __init__(self, counter: Counter, ticket: int) -> None:
        self._counter = counter
        self._ticket = ticket
        self._succeeded = self._kept = self._wrong = self._ended = False
        self._seconds = 0.0
        self._tokens: int | None = None

    def hear(self, headers: Mapping[str, str]) -> None:
        """Pass on the headers that tell of limits."""
        if told := {name: headers[name] for name in _HEADERS if name in headers}:
            self._counter.say(Heard(self._ticket, told))

    def succeeded(self, tokens_used: int | None, seconds: float) -> None:
        """Note an answer; `settle` sends it."""
        self._succeeded, self._tokens, self._seconds = True, tokens_used, seconds

    def keeps(self, store: Cache | None) -> None:
        """Note whether the answer goes to the head; `settle` says it."""
        self._kept = isinstance(store, CacheOfHead)

    def failed(self, error: LMError, seconds: float, row: object = None) -> None:
        """Tell the head of a failure, whose answer `judged` waits for."""
        self._wrong, self._seconds = True, seconds
        self._counter.say(Wrong(self._ticket, Failure.of(error), row if isinstance(row, int) else 0))

    def abandoned(self) -> None:
        """Do nothing: `settle` says it."""

    def settle(self, *, usd: float | None = None, tokens: int | None = None, sent: bool = True) -> None:
        """Tell the head of the end, once."""
        if not self._ended:
            self._ended = True
            self._counter.in_flight -= 1
            ended = Ended(self._ticket, self._succeeded, self._kept, self._seconds, self._tokens, usd, tokens, sent)
            self._counter.say(ended)

    async def judged(self, error: LMError) -> None:
        """Take over the head's judgement of the failure."""
        if self._wrong:
            error.disposition = await self._counter.judged(self._ticket)  # type: ignore[assignment]


class ByHead:
    """The permits of one model: see `runner.lm.permits.Permits`.

    Args:
        counter: where the head is asked.
        model: the name of the model; None is the main one.
    """

    def __init__(self, counter: Counter, model: str | None) -> None:
        self._counter = counter
        self._model = model

    async def acquire(
        self, request: Request, key: str, tokens: int, most: Mapping[str, Any] | None, account: Account | None
    ) -> Granted:
        """Ask the head."""
        del request
        assert account is not None, "a request outside of any slot"
        return Granted(self._counter, await self._counter.demand(self._model, key, tokens, most, account))

    async def pause(self, seconds: float) -> None:
        """Wait, unless the endpoint is closed meanwhile."""
        await self._counter.pause(self._model, seconds)


class CacheOfHead(Cache):
    """The cache as a worker sees it: what it has comes with the head's answer to a `Demand`, and answers go to the head.

    Args:
        like: the cache that the config describes.
        counter: where the head is told.
        model: the model that asks.
    """

    def __init__(self, like: Cache, counter: Counter, model: str | None, folder: Path) -> None:
        super().__init__(folder, mode=like.mode, ttl=like.ttl, memory_entries=0)
        self._counter = counter
        self._model = model

    def get(self, key: str, *, missing_since: int | None = None) -> Entry | None:
        """Return None. The head looks into the cache, unless the plan has done so."""
        if missing_since is not None:
            self._counter.missing.add(key)
        return None

    def put_many(self, items: Iterable[Put]) -> None:
        """Hand answers over. They are in the cache before the sample is in the record."""
        for key, response, request, cost_usd in items:
            asked = None if request is None else as_json(request)
            self._counter.say(Answer(self._model, key, as_json(response), asked, cost_usd))

    def put_soon(self, item: Put, stored: asyncio.Future[None] | None = None) -> None:
        """Do as `put_many`."""
        self.put_many([item])
        if stored is not None:
            stored.set_result(None)

    def settle(self) -> None:
        """Do nothing: what was handed over travels before the sample."""
