"""Bound the requests in flight: a window that shrinks when the server is overloaded, and grows while it is not.

Additive increase, multiplicative decrease (D. Chiu and R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion
Avoidance in Computer Networks", 1989). Losses within one round trip count once, as in TCP NewReno (RFC 6582).
"""

from __future__ import annotations

import math

from runner.limits.trend import Trend

SHRINK = 0.75


class Window:
    """A bound on requests in flight. Starts at `bound`, ×0.75 on overload, +1 after a window of successes. Pure.

    Attributes:
        size: the most requests in flight, a whole number; inf without a bound.
        bound: the largest `size`.
    """

    __slots__ = ("_cut_at", "_successes", "_trend", "bound", "size")

    def __init__(self) -> None:
        self.size = 0.0
        self.bound = 0.0
        self._cut_at = -math.inf
        self._successes = 0
        self._trend = Trend()

    def fit(self, bound: float) -> None:
        """Set another bound. A window that has not shrunk stays as large as its bound."""
        self.size = bound if self.size >= self.bound else min(self.size, bound)
        self.bound = bound

    def overloaded(self, now: float, sent_at: float, in_flight: int) -> None:
        """Shrink after a request sent at `sent_at` met an overloaded server. Requests sent before the last cut do not count."""
        if sent_at <= self._cut_at:
            return
        self._cut_at = now
        self._resize(min(self.size, max(in_flight, 1)) if math.isinf(self.size) else self.size)
        self._trend.interrupted()

    def succeeded(self, now: float, seconds: float, in_flight: int) -> None:
        """Record an answer that took `seconds`, with `in_flight` requests (itself included)."""
        self._successes += 1
        if self._successes >= self.size:
            self._successes = 0
            if self.size < self.bound and not self._trend.slow:
                self.size += 1
        verdict = self._trend.note(now, seconds, in_flight, self.size)
        if verdict is not None:
            self.size = max(1.0, min(verdict, self.bound))

    def _resize(self, base: float) -> None:
        self.size = max(1.0, math.floor(base * SHRINK))
        self._successes = 0


class Ramp:
    """A bound on requests in flight after a start: `first`, doubled every `every_s` seconds, `more` per success.

    Slow start (V. Jacobson, "Congestion Avoidance and Control", 1988): with 1 more per success, each full window of successes
    doubles the bound. A server that takes few requests at once therefore refuses few. No more than `pacing` windows are sent
    while the quickest answer is awaited, evenly, as TCP paces its packets (RFC 9002 section 7.7): answers come in waves. Pure.

    Attributes:
        order: the number of the first request that it counts; older ones do not belong to this start.
        in_flight: how many of those requests are in flight.
        begun_at: when it starts to grow; None until the first request.
    """

    __slots__ = ("_every_s", "_more", "_next_at", "_pacing", "_seconds", "_size", "begun_at", "in_flight", "order")

    def __init__(
        self,
        first: float,
        every_s: float,
        *,
        more: float = 1.0,
        pacing: float = math.inf,
        order: int = 0,
        begun_at: float | None = None,
    ) -> None:
        self._size = first
        self._every_s = every_s
        self._more = more
        self._pacing = pacing
        self._seconds = math.inf  # of the quickest answer
        self._next_at = -math.inf
        self.order = order
        self.begun_at = begun_at
        self.in_flight = 0

    def size(self, now: float) -> float:
        """Return how many requests may be in flight now."""
        if self.begun_at is None or now <= self.begun_at:
            return self._size
        return self._size * math.exp2(min(64.0, (now - self.begun_at) / self._every_s))

    def ready_at(self, now: float) -> float:
        """Return when one more request may be sent: `now`, or when the bound has grown enough."""
        wanted, at = self.in_flight + 1, max(now, self._next_at)
        if self.begun_at is None or wanted <= self._size:
            return at
        return max(at, self.begun_at + self._every_s * math.log2(wanted / self._size))

    def sent(self, now: float) -> None:
        """Record that a request is sent."""
        if self.begun_at is None:
            self.begun_at = now
        self.in_flight += 1
        if self._seconds < math.inf:
            self._next_at = max(self._next_at, now) + self._seconds / (self.size(now) * self._pacing)

    def succeeded(self, seconds: float) -> None:
        """Raise the bound by `more` after an answer that took `seconds`."""
        self._size += self._more
        self._seconds = min(self._seconds, seconds)
