"""How many requests may be in flight: a window that shrinks when the server has too much, and grows while it copes.

Additive increase, multiplicative decrease (D. Chiu and R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion
Avoidance in Computer Networks", 1989). One loss of a round trip counts once, as in TCP NewReno (RFC 6582).
"""

from __future__ import annotations

import math

from runner.limits.trend import Trend

SHRINK = 0.75


class Window:
    """`size` requests may be in flight. Starts at `bound`, x0.75 on overload, +1 after a window of successes. Pure.

    Attributes:
        size: a whole number, or inf while nobody has set a bound.
        bound: what `size` may not exceed.
    """

    __slots__ = ("_cut_at", "_successes", "_trend", "bound", "size")

    def __init__(self) -> None:
        self.size = 0.0
        self.bound = 0.0
        self._cut_at = -math.inf
        self._successes = 0
        self._trend = Trend()

    def fit(self, bound: float) -> None:
        """Set another bound. A window that nothing has shrunk stays as large as it may be."""
        self.size = bound if self.size >= self.bound else min(self.size, bound)
        self.bound = bound

    def overloaded(self, now: float, sent_at: float, in_flight: int) -> None:
        """A request sent at `sent_at` met a server with too much to do. Those sent before the last cut are no news."""
        if sent_at <= self._cut_at:
            return
        self._cut_at = now
        self._resize(min(self.size, max(in_flight, 1)) if math.isinf(self.size) else self.size)
        self._trend.interrupted()

    def succeeded(self, now: float, seconds: float, in_flight: int) -> None:
        """A request was answered after `seconds`, with `in_flight` (itself included) on their way."""
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
    """How many may be in flight soon after a start: `first`, twice as many each `every_s` seconds, `more` for each success.

    A refusal comes back sooner than an answer. So a server that takes few at once is met with few refusals, and one that takes
    all gets all within a moment. Slow start (V. Jacobson, "Congestion Avoidance and Control", 1988), by time as well. Pure.

    Attributes:
        order: the number of the first request that it counts; older ones in flight say nothing about this start.
        in_flight: how many of those are on their way.
        begun_at: when it starts to grow; None until the first request.
    """

    __slots__ = ("_every_s", "_more", "_size", "begun_at", "in_flight", "order")

    def __init__(self, first: float, every_s: float, *, more: float = 1.0, order: int = 0, begun_at: float | None = None) -> None:
        self._size = first
        self._every_s = every_s
        self._more = more
        self.order = order
        self.begun_at = begun_at
        self.in_flight = 0

    def size(self, now: float) -> float:
        """Requests that may be in flight now."""
        if self.begun_at is None or now <= self.begun_at:
            return self._size
        return self._size * math.exp2(min(64.0, (now - self.begun_at) / self._every_s))

    def ready_at(self, now: float) -> float:
        """When one more may go: `now`, or when it has grown enough by itself."""
        wanted = self.in_flight + 1
        if self.begun_at is None or wanted <= self._size:
            return now
        return max(now, self.begun_at + self._every_s * math.log2(wanted / self._size))

    def succeeded(self) -> None:
        """`more` may go."""
        self._size += self._more
