"""Send a request that the cache cannot answer: a generator of steps (send, wait, keep), run by a sync or an async driver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from runner.cache import worth_keeping
from runner.cost.tokens import estimate, limit_of
from runner.errors import LMError
from runner.lm.attempt import Answer, Attempt
from runner.system.clock import now
from runner.transport.base import too_late
from runner.types import Completion, Response

if TYPE_CHECKING:
    from runner.cache import Cache
    from runner.cost.account import Account
    from runner.cost.budget import Reservation
    from runner.lm.channel import Channel
    from runner.types import Request


class Send(msgspec.Struct, frozen=True):
    """Step: send the request. The driver sends an Answer in, or throws an LMError in."""


SEND = Send()


class Wait(msgspec.Struct, frozen=True):
    """Step: wait `seconds`."""

    seconds: float


class Keep(msgspec.Struct, frozen=True):
    """Step: put the answer into the cache."""

    response: Response
    cost_usd: float | None


Steps: TypeAlias = Generator[Send | Wait | Keep, Answer | None, Completion]
"""One call: yields steps, receives their answers or errors, and returns the outcome of the call."""


class Call:
    """One request on its way to an answer: attempts, waits between them, and the answer's way into the cache.

    Args:
        channel: what it is sent through.
        request: what is sent.
        key: its key in the cache.
        store: the cache that keeps the answer; None keeps nothing.
        account: adds up what the attempts use; None if nobody wants to know.
    """

    __slots__ = ("_account", "_channel", "_key", "_request", "_store")

    def __init__(self, channel: Channel, request: Request, key: str, store: Cache | None, account: Account | None = None) -> None:
        self._account = account
        self._channel = channel
        self._request = request
        self._key = key
        self._store = store

    def run(self) -> Completion:
        """Send it, in a thread that may block. Raises as `LM.acomplete`."""
        limiter, steps = self._channel.limiter, self._steps()
        try:
            step = next(steps)
            while True:
                answer = None
                try:
                    if step is SEND:
                        answer = self._send()
                    elif isinstance(step, Keep):
                        assert self._store is not None
                        self._store.put(self._key, step.response, request=self._request, cost_usd=step.cost_usd)
                    else:
                        assert isinstance(step, Wait)
                        (limiter.pause_blocking if limiter else time.sleep)(step.seconds)
                except LMError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            completion: Completion = end.value
            return completion

    async def arun(self) -> Completion:
        """Do as `run`, in an event loop."""
        limiter, steps = self._channel.limiter, self._steps()
        try:
            step = next(steps)
            while True:
                answer = None
                try:
                    if step is SEND:
                        answer = await self._asend()
                    elif isinstance(step, Keep):
                        assert self._store is not None
                        await self._store.aput(self._key, step.response, request=self._request, cost_usd=step.cost_usd)
                    else:
                        assert isinstance(step, Wait)
                        await (limiter.pause if limiter else asyncio.sleep)(step.seconds)
                except LMError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            completion: Completion = end.value
            return completion

    def _steps(self) -> Steps:
        channel, store = self._channel, self._store
        started_at, first = now(), time.perf_counter()
        failures: list[str] = []
        while True:
            try:
                answer = yield SEND
                break
            except LMError as error:
                failures.append(error.code)
                error.attempts = len(failures)
                wait = channel.retry.wait(error, len(failures), time.perf_counter() - first, alike=failures.count(error.code))
                if wait is None:
                    raise
                try:
                    yield Wait(wait)
                except LMError as closed:
                    closed.attempts = len(failures)
                    raise
        assert answer is not None
        response, first_token_s = answer.response, answer.response.first_token_s
        if first_token_s is not None:
            response = msgspec.structs.replace(response, first_token_s=None)
        cost, cost_from = channel.cost_of(response)
        if store is not None and store.writes and worth_keeping(response, max_tokens=limit_of(self._request)):
            yield Keep(response, cost)
        return Completion(
            key=self._key,
            response=response,
            cache="miss" if store is not None else "off",
            attempts=len(failures) + 1,
            latency_s=answer.seconds,
            cost_usd=cost,
            cost_from=cost_from,
            started_at=started_at,
            first_token_s=first_token_s,
        )

    def _send(self) -> Answer:
        """Do as `_asend`, in a thread that may block."""
        channel, limiter, request = self._channel, self._channel.limiter, self._request
        most = channel.most(request) if channel.budget else None
        reserved = channel.budget.reserve_blocking(**most) if channel.budget and most else None
        attempt = Attempt(request)
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
            return attempt.succeeded(response)
        finally:
            self._settle(reserved, attempt, most)

    async def _asend(self) -> Answer:
        """Make one attempt: reserve budget, acquire a pass, send. Raises LMError and BudgetExceeded."""
        channel, limiter, request = self._channel, self._channel.limiter, self._request
        channel.transport.prepare(request, channel.connection)
        most = channel.most(request) if channel.budget else None
        reserved = await channel.budget.reserve(**most) if channel.budget and most else None
        attempt = Attempt(request)
        try:
            attempt.place = await limiter.acquire(estimate(request).total_tokens) if limiter else None
            if self._account is not None:
                self._account.sending(most)
            attempt.begin()
            try:
                async with asyncio.timeout(channel.connection.timeout_s):
                    response = await channel.transport.acomplete(request, channel.connection, attempt.hear)
            except LMError as error:
                attempt.failed(error)
                raise
            except TimeoutError:
                late = too_late(request, channel.connection)
                attempt.failed(late)
                raise late from None
            return attempt.succeeded(response)
        finally:
            self._settle(reserved, attempt, most)

    def _settle(self, reserved: Reservation | None, attempt: Attempt, most: dict[str, Any] | None) -> None:
        """Count what the attempt has used; where that is unknown, the most that it may have used."""
        sent, used = attempt.began is not None, attempt.used
        if attempt.place is not None:
            attempt.place.abandoned()  # has an effect only if it was cancelled
        usd = self._channel.cost(used, attempt.named_usd) if sent else None
        if reserved is not None:
            reserved.settle(usd=usd, tokens=used.total_tokens if used else None, sent=sent)
        if sent and self._account is not None:
            unknown = (most or self._channel.most(self._request)) if used is None else None
            self._account.ended(used, usd, unknown, answered=attempt.answered)
