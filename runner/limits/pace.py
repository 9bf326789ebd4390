"""A rate learned from refusals: what a server lets through a minute when it does not say so.

A server refuses when its allowance is empty. So what it admitted between two refusals is what flowed in meanwhile: an exact
measure of its rate, whatever its burst, a token bucket's or a window's. After a refusal the rate starts a little below that
measure, comes back to it, stays there, and then probes upwards ever faster: the curve of CUBIC (RFC 9438) for a rate. The more a
measure stands on, the smaller and rarer the probes: a rate that is well known costs about one refusal a minute.
"""

from __future__ import annotations

from collections import deque

from runner.limits.bucket import Bucket

BURST_S = 0.5
HISTORY_S = 120.0
MARKS = 8
"""Refusals that are remembered, and for how many seconds."""
FIRM = 20
"""Requests between two refusals that make a measure good to 5 %."""
SMALLEST_STEP, LARGEST_STEP = 0.02, 0.3
SHORTEST_S, LONGEST_S = 1.0, 30.0
"""How far below the measure the rate starts, as a share, and how long it takes to come back to it."""
REACHED = 0.97
"""Of the rate at which a firm one was refused, what is kept at least: a server that saves nothing up, or whose limit has risen,
was asked too little on the way, and the measure is too low. When it is too high, the next refusal comes at once and says so."""
FORGET = 8.0
"""A rate that has grown so many times over without a refusal bounds nothing any more."""


class Pace:
    """The learned rate. Unknown until a second refusal, so it bounds nothing before. Pure.

    Attributes:
        known: whether there is a rate.
        count: requests that its measure stands on.
    """

    __slots__ = ("_blocked_since", "_bucket", "_end", "_grown", "_least", "_marks", "_rate", "_span", "_step", "count", "known")

    def __init__(self) -> None:
        self._marks: deque[list[float]] = deque(maxlen=MARKS)  # [time of a refusal, requests admitted until then]
        self._end = (0.0, 0.0)
        self.known = False
        self.count = 0.0
        self._rate = 0.0
        self._least = 0.0
        self._span = self._step = 0.0
        self._grown = 0.0
        self._blocked_since: float | None = None
        self._bucket = Bucket(1.0, 1.0, 0.0)

    def refused(self, now: float, admitted: float, resume_at: float) -> None:
        """A refusal that is news: `admitted` requests in all had been let through, and sending goes on at `resume_at`."""
        self._end = (now, admitted)
        firm = self.known and admitted - self._marks[-1][1] >= FIRM
        self._least = REACHED * self.rate() if firm else 0.0
        self._measure()
        self._grown = 0.0
        self._blocked_since = None
        self._bucket = Bucket(self.rate(), max(1.0, self.rate() * BURST_S), now, level=0.0)
        self._bucket.level(resume_at)
        if not self._marks or admitted > self._marks[-1][1]:  # of several in vain, the first says when the allowance was empty
            self._marks.append([now, admitted])

    def corrected(self, sent_at: float) -> None:
        """A request that was thought admitted, sent at `sent_at`, was refused with the others."""
        for mark in self._marks:
            if mark[0] >= sent_at:
                mark[1] -= 1
        self._end = (self._end[0], self._end[1] - 1)
        self._measure()

    def rate(self) -> float:
        """Requests a second, as of now; 0 when unknown."""
        grown = self._grown / self._span - 1 if self._span else 0.0
        return self._rate * (1 + self._step * grown**3)

    def ready_at(self, now: float) -> float:
        """When the next request may go. The rate grows only while it is what requests wait for."""
        if self._blocked_since is not None:
            self._grown += now - self._blocked_since
            self._blocked_since = None
        rate = self.rate()
        if rate > FORGET * self._rate:
            self.forget()
            return now
        self._bucket.level(now)
        self._bucket.rate = rate
        self._bucket.capacity = max(1.0, rate * BURST_S)
        at = self._bucket.ready_at(1, now)
        if at > now:
            self._blocked_since = now
        return at

    def take(self, now: float) -> None:
        """A request goes out."""
        self._bucket.take(1, now)

    def forget(self) -> None:
        """Nothing is known any more."""
        self.known = False
        self._rate = 0.0
        self._marks.clear()

    def _measure(self) -> None:
        """The best measure up to the last refusal: the highest firm one, as a server that was not asked enough lost some."""
        now, admitted = self._end
        recent = [mark for mark in self._marks if now - mark[0] <= HISTORY_S] or list(self._marks)[-1:]
        found = [(admitted - mark[1], now - mark[0]) for mark in recent if admitted - mark[1] >= 1 and now > mark[0]]
        if not found:
            return
        firm = [measure for measure in found if measure[0] >= FIRM]
        count, span = max(firm, key=lambda measure: measure[0] / measure[1]) if firm else max(found)
        self.known = True
        self.count = count
        self._rate = max(self._least, count / span)
        self._span = min(LONGEST_S, max(SHORTEST_S, span / 2))
        self._step = min(LARGEST_STEP, max(SMALLEST_STEP, 1 / count))
