"""Decide when a request may be sent to an endpoint, and learn from its outcome: window, rates, pauses and breaker."""

from __future__ import annotations

import math
import random
from collections import deque
from typing import TYPE_CHECKING

from runner.errors import LMError, LMTimeoutError, RateLimitError, ServerError
from runner.limits.breaker import PROBES, TRIP, Breaker
from runner.limits.bucket import MINUTE_S, Bucket
from runner.limits.mirror import Mirror
from runner.limits.pace import Pace
from runner.limits.window import Ramp, Window

if TYPE_CHECKING:
    from runner.limits.headers import Told
    from runner.limits.lane import Lane, Pass

PATIENCE_S = 300.0
"""The longest wait that a server may ask for, as in RetryPolicy; a longer one closes the endpoint."""
HINT_S = 0.05
"""A Retry-After below this is ignored: all requests would be sent again at once."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
START, START_EVERY_S, START_PACING = 8, 1.0, 2.0
"""A new endpoint gets 8 requests at once. Each answer allows one more: twice as many with each full window of answers. So does
each second, since a refusal would have come by then, and answers may take much longer. Linux's slow start has the same pacing."""
RESUME_EVERY_S, RESUME_MORE, RESUME_MORE_KNOWN = 0.5, 0.1, 0.5
"""After a refusal it gets 1 request, and twice as many every half second. Answers allow few more, because they come in waves, and
each wave would grow; more if the server tells in its headers what it has left."""
ENOUGH = 4096
"""The slow start ends at this many in flight, even without a bound."""
FIRM = 50
SUSPECT_S = 5.0
"""When a rate was measured with at least `FIRM` requests, refusals closer together than `SUSPECT_S` have another cause."""
OVERLOADED = (503, 529)
FAILING = ("server", "timeout", "transport", "connection_lost", "malformed")
"""Codes of errors for which the server is at fault, not the request."""
WHATEVER_THE_ROW = ("transport",)
"""The codes in `FAILING` that no row can cause. A row cannot cause a status of `OVERLOADED` either."""


class Gate:
    """The rules for one endpoint. Pure: the time is passed in. The caller holds the endpoint's lock.

    Args:
        address: shown in messages.

    Attributes:
        free: whether only bounds on requests in flight apply, so that admission takes a short cut.
        in_flight: requests in flight; `sent`: requests sent in total; `tokens_sent`: their estimated tokens.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.free = True
        self.in_flight = 0
        self.sent = 0
        self.tokens_sent = 0
        self.window = Window()
        self._dice = random.Random()  # noqa: S311 - jitter
        self._refused = 0
        self._minute: deque[list[int]] = deque(maxlen=int(MINUTE_S) + 1)  # [second, requests]
        self._this_second = [0, 0]
        self._second_ends = -math.inf
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self._rpm: float | None = None
        self._tpm: float | None = None
        self._requests_left = Mirror()
        self._tokens_left = Mirror()
        self._heard = False
        self._pace = Pace()
        self._ramp: Ramp | None = None
        self._breaker = Breaker()
        self._paused_until = -math.inf
        self._paused_for = ""
        self._episode_at = -math.inf
        self._in_vain = 0

    def tell(self, rpm: float | None, tpm: float | None, now: float) -> None:
        """Set rates per minute; None leaves a rate as it is."""
        if rpm is not None and rpm != self._rpm:
            self._rpm = rpm
            self._requests = Bucket.per_minute(rpm, now)
        if tpm is not None and tpm != self._tpm:
            self._tpm = tpm
            self._tokens = Bucket.per_minute(tpm, now)
        self._note_freedom()

    def meet(self) -> None:
        """Prepare for an adaptive limiter: an endpoint that has had no request yet is started slowly."""
        if self.sent == 0:
            self._ramp = Ramp(START, START_EVERY_S, more=1.0, pacing=START_PACING)
            self._note_freedom()

    def forget(self) -> None:
        """End pauses and close the breaker; keep what was learned."""
        self._paused_until = -math.inf
        self._in_vain = 0
        self._breaker.works()
        self._note_freedom()

    # --- before a request

    def open_at(self, lane: Lane, tokens: int, now: float) -> float:
        """Return when a request may be sent: `now`, later, or inf if another event must come first."""
        if lane.adaptive:
            if self.in_flight >= self.window.size:
                return math.inf
            if self._breaker.open and self._breaker.ready_at() > now:
                return self._breaker.ready_at()
            if self._paused_until > now:
                return self._paused_until
        at = now
        if self._requests is not None:
            at = max(at, self._requests.ready_at(1, now))
        if self._tokens is not None:
            at = max(at, self._tokens.ready_at(tokens, now))
        if not lane.adaptive:
            return at
        if self._heard:
            at = max(at, self._requests_left.ready_at(1, now), self._tokens_left.ready_at(tokens, now))
        if self._ramp is not None:
            at = max(at, self._ramp.ready_at(now))
        if self._pace.known:
            at = max(at, self._pace.ready_at(now))
        return at

    def admit(self, pass_: Pass, now: float) -> None:
        """Record that a request is sent."""
        self.in_flight += 1
        self.sent += 1
        self.tokens_sent += pass_.tokens
        if now < self._second_ends:
            self._this_second[1] += 1
        else:
            self._this_second = [int(now), 1]
            self._second_ends = int(now) + 1
            self._minute.append(self._this_second)
        if not self.free:
            self._charge(pass_, now)

    def _charge(self, pass_: Pass, now: float) -> None:
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(pass_.tokens, now)
        self._requests_left.take(1)
        self._tokens_left.take(pass_.tokens)
        if self._pace.known:
            self._pace.take(now)
        if self._ramp is not None and pass_.lane.adaptive:
            self._climb(self._ramp, now)
        if self._breaker.open and pass_.lane.adaptive:
            pass_.probe = True
            self._breaker.begin()

    def _climb(self, ramp: Ramp, now: float) -> None:
        ramp.sent(now)
        if ramp.size(now) >= min(self.window.size, ENOUGH):
            self._ramp = None
            self._note_freedom()

    def _note_freedom(self) -> None:
        self.free = (
            self._requests is None
            and self._tokens is None
            and not self._heard
            and self._ramp is None
            and not self._pace.known
            and not self._breaker.open
            and self._paused_until == -math.inf
        )

    def refund(self, pass_: Pass, now: float) -> None:
        """Undo the admission of a request that was not sent."""
        if self._requests is not None:
            self._requests.give_back(1, now)
        self._requests_left.give_back(1)
        self._settle(pass_, 0, now)

    # --- after a request

    def release(self, pass_: Pass) -> None:
        """Record the end of a request, whatever its outcome."""
        self.in_flight -= 1
        if self._ramp is not None and pass_.order >= self._ramp.order:
            self._ramp.in_flight -= 1
        if pass_.probe and self._breaker.probing:
            self._breaker.abandoned()

    def succeeded(self, pass_: Pass, tokens_used: int | None, seconds: float, now: float) -> None:
        """Record an answer that took `seconds`."""
        if pass_.lane.adaptive:
            self.window.succeeded(now, seconds, self.in_flight)
            self._breaker.rows.clear()
        if not self.free:
            self._settle(pass_, tokens_used, now)
            if pass_.lane.adaptive:
                self._works(pass_, seconds, now)

    def failed(self, pass_: Pass, error: LMError, now: float, row: object = None) -> LMError | None:
        """Learn from a failure of `row` (None: unknown). Return the error to close the endpoint with, if it must be closed."""
        over = None
        if isinstance(error, RateLimitError):
            over = self._too_fast(pass_, error, now)
        elif isinstance(error, LMTimeoutError) or (isinstance(error, ServerError) and error.status in OVERLOADED):
            self.window.overloaded(now, pass_.sent_at, self.in_flight)
            if error.retry_after is not None:
                over = self._pause(now, error.retry_after, f"{error.status}", error)
        if error.code not in FAILING:
            self._breaker.works()  # a refusal shows that the server works
        else:
            blameless = error.code in WHATEVER_THE_ROW or error.status in OVERLOADED
            if self._breaker.failed(now, probe=pass_.probe, row=None if blameless else row):
                over = self._given_up(error)
        self._note_freedom()
        return over

    def hear(self, requests: Told | None, tokens: Told | None, pass_: Pass | None, now: float) -> None:
        """Learn from rate-limit headers, of the request with `pass_` or of an unknown one."""
        order, age = (pass_.order, now - pass_.sent_at) if pass_ is not None else (None, 0.0)
        if requests is not None:
            unseen = self.sent - pass_.order - 1 if pass_ is not None else max(0, self.in_flight - 1)
            self._requests_left.hear(requests, now, order=order, age=age, unseen=unseen)
        if tokens is not None:
            unseen = self.tokens_sent - pass_.tokens_before - pass_.tokens if pass_ is not None else 0
            self._tokens_left.hear(tokens, now, order=order, age=age, unseen=unseen)
        self._heard = True
        self.free = False

    def live(self, lane: Lane, now: float) -> dict[str, object]:
        """Return the current numbers; see `Live`."""
        paused_s = max(0.0, self._paused_until - now) if lane.adaptive else 0.0
        size = min(lane.bound, self.window.size) if lane.adaptive else lane.bound
        rates = [self._rpm]
        if lane.adaptive:
            rates += [self._requests_left.per_minute, self._pace.rate() * MINUTE_S if self._pace.known else None]
        failing = self._breaker.open and lane.adaptive
        return {
            "window": None if size == math.inf else int(size),
            "in_flight": self.in_flight,
            "last_minute": sum(count for second, count in self._minute if second > now - MINUTE_S),
            "rpm": min((rate for rate in rates if rate is not None), default=None),
            "paused_s": paused_s,
            "state": "breaker" if failing else "paused" if paused_s else "open",
            "reason": self._paused_for if paused_s and not failing else "",
        }

    def _settle(self, pass_: Pass, tokens_used: int | None, now: float) -> None:
        if tokens_used is None:
            return
        if self._tokens is not None:
            self._tokens.give_back(pass_.tokens - tokens_used, now)
        self._tokens_left.give_back(pass_.tokens - tokens_used)

    def _works(self, pass_: Pass, seconds: float, now: float) -> None:
        if self._breaker.open:
            self._breaker.works()
        if pass_.sent_at > self._episode_at:
            self._in_vain = 0
            if self._ramp is not None:
                self._ramp.succeeded(seconds)
        if now >= self._paused_until:
            self._paused_until = -math.inf
        self._note_freedom()

    def _too_fast(self, pass_: Pass, error: LMError, now: float) -> LMError | None:
        """Pause all requests after a 429, and correct the pace. Refusals within one round trip count once."""
        self._refused += 1
        hint = error.retry_after if error.retry_after is not None and error.retry_after >= HINT_S else None
        if pass_.sent_at <= self._episode_at:
            self._pace.corrected(pass_.sent_at)
            return self._pause(now, hint, "429", error) if hint is not None else None
        firm = self._pace.known and self._pace.count >= FIRM
        if not self._pace.known or (firm and now - self._episode_at < SUSPECT_S):
            self.window.overloaded(now, pass_.sent_at, self.in_flight)
        self._episode_at = now
        wait = hint if hint is not None else self._backoff()
        self._in_vain += 1
        self._pace.refused(now, self.sent - self._refused, now + wait)
        more = RESUME_MORE_KNOWN if self._heard else RESUME_MORE
        ramp = Ramp(1, RESUME_EVERY_S, more=more, order=self.sent, begun_at=now + wait)
        self._ramp = None if self._pace.known else ramp
        return self._pause(now, wait, "429", error)

    def _backoff(self) -> float:
        """Return the seconds to wait if the server names none: doubled for each refusal without a success in between."""
        first = FIRST_BACKOFF_S
        if self._pace.known:
            first = min(first, 2 / self._pace.rate())
        return self._dice.uniform(0.5, 1.0) * min(LONGEST_BACKOFF_S, first * math.exp2(min(self._in_vain, 10)))

    def _pause(self, now: float, seconds: float, reason: str, error: LMError) -> LMError | None:
        if seconds > PATIENCE_S:
            return _said_again(error, f"{error.message}; {self.address} asks to wait {seconds:.0f} s; resume the run after that")
        if now + seconds > self._paused_until:
            self._paused_until = now + seconds
            self._paused_for = reason
        return None

    def _given_up(self, error: LMError) -> LMError:
        return _said_again(
            error,
            f"{error.message}; {self.address} kept failing: {TRIP} rows in succession, then {PROBES} single probes; "
            f"resume the run once it works",
        )


def _said_again(error: LMError, message: str) -> LMError:
    return type(error)(message, provider=error.provider, model=error.model, status=error.status, request_id=error.request_id)
