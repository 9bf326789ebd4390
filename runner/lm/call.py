"""Send a request that the cache cannot answer: attempts, waits between them, and the answer's way into the cache."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec

from runner.cache import worth_keeping
from runner.cost.tokens import estimate, limit_of
from runner.errors import LMError
from runner.lm.attempt import Attempt
from runner.lm.permits import AnsweredElsewhere
from runner.system.clock import now
from runner.system.deadline import Deadline
from runner.types import Completion

if TYPE_CHECKING:
    from runner.cache import Cache
    from runner.cost.account import Account
    from runner.cost.budget import Reservation
    from runner.lm.channel import Channel
    from runner.lm.permits import Permit, Permits
    from runner.types import Request, Response


class Call:
    """One request on its way to an answer. It is made once, by `run` or by `arun`.

    Args:
        channel: what it is sent through.
        request: what is sent.
        key: its key in the cache.
        store: the cache that keeps the answer; None keeps nothing.
        account: adds up what the attempts use; None if nobody wants to know.
    """

    __slots__ = ("_account", "_began", "_channel", "_failures", "_key", "_request", "_started_at", "_store")

    def __init__(self, channel: Channel, request: Request, key: str, store: Cache | None, account: Account | None = None) -> None:
        self._account = account
        self._channel = channel
        self._request = request
        self._key = key
        self._store = store
        self._failures: list[str] = []
        self._began, self._started_at = time.perf_counter(), now()

    def run(self) -> Completion:
        """Send it, in a thread that may block. Raises as `LM.acomplete`."""
        limiter = self._channel.limiter
        while True:
            attempt = Attempt(self._request)
            try:
                self._send(attempt)
                break
            except LMError as error:
                wait_s = self._wait_after(error)
            try:
                (limiter.pause_blocking if limiter else time.sleep)(wait_s)
            except LMError as closed:
                closed.attempts = len(self._failures)
                raise
        completion = self._completed(attempt)
        if (store := self._keeps(completion.response)) is not None:
            store.put_many([(self._key, completion.response, self._request, completion.cost_usd)])
        return completion

    async def arun(self, stored: bool = True) -> Completion:
        """Do as `run`, in an event loop. Unless `stored`, the answer is stored a moment later (see `Cache.put_soon`)."""
        limiter = self._channel.permits or self._channel.limiter
        while True:
            attempt = Attempt(self._request)
            try:
                await self._asend(attempt)
                break
            except AnsweredElsewhere as known:
                return Completion.hit(self._key, known.response, known.cost_usd)
            except LMError as error:
                wait_s = self._wait_after(error)
            try:
                await (limiter.pause if limiter else asyncio.sleep)(wait_s)
            except LMError as closed:
                closed.attempts = len(self._failures)
                raise
        completion = self._completed(attempt)
        if (store := self._keeps(completion.response)) is not None:
            item = self._key, completion.response, self._request, completion.cost_usd
            if stored:
                await store.aput(item)
            else:
                store.put_soon(item)
        return completion

    def _wait_after(self, error: LMError) -> float:
        """Return the seconds to wait for the next attempt. Raises `error` if it is final."""
        failures = self._failures
        failures.append(error.code)
        error.attempts = len(failures)
        elapsed = time.perf_counter() - self._began
        wait_s = self._channel.retry.wait(error, len(failures), elapsed, alike=failures.count(error.code))
        if wait_s is None:
            raise error
        return wait_s

    def _completed(self, attempt: Attempt) -> Completion:
        response, first_token_s = attempt.response, None
        assert response is not None
        if response.first_token_s is not None:
            response, first_token_s = msgspec.structs.replace(response, first_token_s=None), response.first_token_s
        return Completion(
            key=self._key,
            response=response,
            cache="miss" if self._store is not None else "off",
            attempts=len(self._failures) + 1,
            latency_s=attempt.seconds,
            cost_usd=attempt.usd,
            cost_from=self._channel.cost_from(response),
            started_at=self._started_at,
            first_token_s=first_token_s,
        )

    def _keeps(self, response: Response) -> Cache | None:
        """Return the cache that has to keep the answer, if any."""
        store = self._store
        if store is None or not store.writes:
            return None
        return store if worth_keeping(response, max_tokens=limit_of(self._request)) else None

    def _send(self, attempt: Attempt) -> None:
        """Do as `_asend`, in a thread that may block."""
        channel, limiter, request = self._channel, self._channel.limiter, self._request
        most = channel.most(request) if channel.budget else None
        reserved = channel.budget.reserve_blocking(**most) if channel.budget and most else None
        try:
            attempt.place = limiter.acquire_blocking(estimate(request).total_tokens) if limiter else None
            if self._account is not None:
                self._account.sending(most)
            attempt.begin()
            try:
                response = channel.transport.complete(request, channel.connection, attempt.hear)
            except LMError as error:
                attempt.failed(error)
                raise
            attempt.succeeded(response)
        finally:
            self._settle(reserved, attempt, most)

    async def _asend(self, attempt: Attempt) -> None:
        """Make one attempt: reserve budget, acquire a pass, send. Raises LMError and BudgetExceeded."""
        channel, limiter, request = self._channel, self._channel.limiter, self._request
        channel.transport.prepare(request, channel.connection)
        most = channel.most(request) if channel.budget else None
        if channel.permits is not None:
            await self._asend_permitted(attempt, channel.permits, most)
            return
        reserved = await channel.budget.reserve(**most) if channel.budget and most else None
        try:
            if limiter is not None:
                tokens = estimate(request).total_tokens
                attempt.place = limiter.enter(tokens) or await limiter.acquire(tokens)
            if self._account is not None:
                self._account.sending(most)
            await self._atransport(attempt)
        finally:
            self._settle(reserved, attempt, most)

    async def _asend_permitted(self, attempt: Attempt, permits: Permits, most: dict[str, Any] | None) -> None:
        """Do as `_asend` where another process has limiter, budget and ledger."""
        tokens = estimate(self._request).total_tokens
        permit = attempt.place = await permits.acquire(self._request, self._key, tokens, most, self._account)
        try:
            await self._atransport(attempt)
            assert attempt.response is not None
            permit.keeps(self._keeps(attempt.response))
        except LMError as error:
            await permit.judged(error)
            raise
        finally:
            self._settle(permit, attempt, most)

    async def _atransport(self, attempt: Attempt) -> None:
        """Send the request once, and note the outcome. Raises LMError."""
        channel, request = self._channel, self._request
        attempt.begin()
        try:
            with Deadline(channel.connection.timeout_s):
                response = await channel.transport.acomplete(request, channel.connection, attempt.hear)
        except LMError as error:
            attempt.failed(error)
            raise
        except TimeoutError:
            from runner.transport.base import too_late

            late = too_late(request, channel.connection)
            attempt.failed(late)
            raise late from None
        attempt.succeeded(response)

    def _settle(self, reserved: Reservation | Permit | None, attempt: Attempt, most: dict[str, Any] | None) -> None:
        """Count what the attempt has used; where that is unknown, the most that it may have used."""
        sent, used, answer = attempt.began is not None, attempt.used, attempt.response
        if attempt.place is not None and answer is None:
            attempt.place.abandoned()  # has an effect only if it was cancelled
        if sent:
            attempt.usd = self._channel.cost(used, answer.cost_usd if answer is not None else None)
        if reserved is not None:
            reserved.settle(usd=attempt.usd, tokens=used.total_tokens if used else None, sent=sent)
        if sent and self._account is not None:
            unknown = (most or self._channel.most(self._request)) if used is None else None
            self._account.ended(used, attempt.usd, unknown, answered=answer is not None)
