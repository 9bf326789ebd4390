"""A rate learned from refusals, for servers that do not report their limit.

A server refuses when its allowance is empty. The requests that it admitted between two refusals therefore measure its rate
exactly, whatever its burst, for a token bucket and a window alike. After a refusal the rate starts a little below that measure,
returns to it, stays there, and then probes upwards ever faster: the curve of CUBIC (RFC 9438), for a rate. The more requests a
measure has, the smaller and rarer the probes: a well-known rate costs about one refusal per minute.

A server that saves up little, such as nginx without a burst, drops allowance that is not used at once, so its rate is measured
too low. A pause reveals this: sending resumes with the whole allowance of the pause, and a server that takes only part of it has
saved up no more than that. From then on no more is sent at once, and the measure is corrected for allowance lost in pauses. For
such servers, and after a limit has risen, the rate at which a refusal came says more than the measure; after few requests, the
geometric mean of the two is used.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from runner.limits.bucket import Bucket

BURST_S = 0.5
HISTORY_S = 120.0
MARKS = 8
"""How many refusals are remembered, and for how many seconds."""
FIRM = 20
"""Requests between two refusals that make a measure exact to 5 %."""
SMALLEST_STEP, LARGEST_STEP = 0.02, 0.3
SHORTEST_S, LONGEST_S = 1.0, 30.0
"""How far below the measure the rate starts, as a share, and how many seconds it takes to return to it."""
SURE_S, SURE_TIMES = 20.0, 4.0
"""Seconds since the last refusal, or multiples of what the server saves up, after which a refusal concerns the rate alone."""
REACHED = 0.97
"""The least share that is kept of the rate at which such a refusal came. If it is too high, the next refusal comes soon."""
TELLING = 2
"""Requests at once that show what a server saves up: it always takes the first."""
CAUTION = 0.8
"""The share of a possible saving that is sent at once: a measure of a few requests may be a fifth too high."""
FORGET = 64.0
"""A well-measured rate that has grown by this factor without a refusal is dropped."""


class Mark(NamedTuple):
    """A refusal: its time, and the requests admitted, the pauses and the seconds paused until then."""

    at: float
    admitted: float
    pauses: int
    paused_s: float


class Pace:
    """The learned rate. There is none, and so no bound, before a second refusal. Pure.

    Attributes:
        known: whether there is a rate.
        count: the requests that it was measured with.
    """

    __slots__ = (
        "_blocked",
        "_bucket",
        "_by_pause",
        "_due",
        "_grown",
        "_last",
        "_marks",
        "_over",
        "_rate",
        "_resume_at",
        "_saved",
        "_span",
        "_step",
        "_sure",
        "count",
        "known",
    )

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque(maxlen=MARKS)
        self._last = Mark(0.0, 0.0, 0, 0.0)
        self.known = False
        self.count = 0.0
        self._saved: float | None = None  # the most requests that the server saves up; None is unknown
        self._rate = 0.0
        self._over = 0.0  # the rate at which the last refusal came
        self._sure = False  # whether that refusal concerned the rate alone
        self._by_pause = False  # or what followed a pause
        self._span = self._step = 0.0
        self._grown = 0.0
        self._blocked: tuple[float, float] | None = None  # from when to when the rate delays a request
        self._resume_at = 0.0
        self._due = 0.0  # requests that flow in until then
        self._bucket = Bucket(1.0, 1.0, 0.0)

    def refused(self, now: float, admitted: float, resume_at: float) -> None:
        """Learn from a refusal: `admitted` requests had been admitted in total, and sending resumes at `resume_at`."""
        before, paused_s = self._last, max(0.0, self._resume_at - self._last.at)
        self._last = Mark(now, admitted, before.pauses + (paused_s > 0), before.paused_s + paused_s)
        since = admitted - self._marks[-1].admitted if self._marks else 0.0
        self._by_pause = self.known and self._learn_saved(since)
        if not self._by_pause:
            self._over = self.rate()
            self._sure = since >= FIRM and self._is_about_rate(since)
            self._measure()
        if since > 0 or not self._marks:  # of several without an admission, the first one marks when the allowance was empty
            self._marks.append(self._last)
        self._grown = 0.0
        self._blocked = None
        self._resume_at = resume_at
        self._due = CAUTION * self.rate() * (resume_at - now)
        self._fill()

    def corrected(self, sent_at: float) -> None:
        """Correct the count: a request sent at `sent_at`, counted as admitted, was refused with the others."""
        for index, mark in enumerate(self._marks):
            if mark.at >= sent_at:
                self._marks[index] = mark._replace(admitted=mark.admitted - 1)
        self._last = self._last._replace(admitted=self._last.admitted - 1)
        if not self._by_pause:
            self._measure()
        elif self._saved is not None:
            self._saved = max(1.0, self._saved - 1)
            self._fill()

    def rate(self) -> float:
        """Return the current rate in requests per second; 0 if unknown."""
        grown = self._grown / self._span - 1 if self._span else 0.0
        return self._rate * (1 + self._step * grown**3)

    def ready_at(self, now: float) -> float:
        """Return when the next request may be sent. The rate grows only while requests wait for it."""
        if self._blocked is not None:
            since, until = self._blocked
            self._grown += min(now, until) - since
            self._blocked = None
        rate = self.rate()
        if rate > FORGET * self._rate and self.count >= FIRM:
            self.forget()
            return now
        self._bucket.level(now)
        self._bucket.rate = rate
        self._bucket.capacity = self._capacity()
        at = self._bucket.ready_at(1, now)
        if at > now:
            self._blocked = (now, at)
        return at

    def take(self, now: float) -> None:
        """Record that a request is sent."""
        self._bucket.take(1, now)
        self._resume_at = min(self._resume_at, now)  # a pause may end early

    def forget(self) -> None:
        """Forget the rate."""
        self.known = False
        self._rate = 0.0
        self._saved = None
        self._marks.clear()

    def _fill(self) -> None:
        """Fill the bucket with what flows in during the pause, up to what may be sent at once."""
        self._bucket = Bucket(self.rate(), self._capacity(), self._resume_at, level=self._due)

    def _capacity(self) -> float:
        """Return how many requests may be sent at once."""
        most = self.rate() * BURST_S
        return max(1.0, most if self._saved is None else min(most, CAUTION * self._saved))

    def _learn_saved(self, since: float) -> bool:
        """Learn from a refusal, `since` requests after the last one, how much the server saves up.

        Returns:
            Whether the refusal concerns what followed the pause, and so not the rate.
        """
        sent = min(self._due, self._capacity())
        if since < 1:
            if self._due >= TELLING:
                self._saved = math.inf  # a window that has not restarted yet: it gives all at once, later
        elif sent >= TELLING:
            if since <= sent and (self._saved is None or since < self._saved):
                self._saved = since
                return True
            if self._saved is None:
                self._saved = math.inf
        return False

    def _is_about_rate(self, since: float) -> bool:
        """Return whether `since` requests after the last refusal have used up all that the server had saved."""
        if self._saved is None or self._saved == math.inf:
            return self._last.at - self._marks[-1].at >= SURE_S
        return since >= SURE_TIMES * self._saved

    def _measure(self) -> None:
        """Set the best measure up to the last refusal: the highest firm one, since unused allowance may have been lost."""
        recent = [mark for mark in self._marks if self._last.at - mark.at <= HISTORY_S] or list(self._marks)[-1:]
        found = [found for mark in recent if (found := self._between(mark)) is not None]
        if not found:
            return
        firm = [measure for measure in found if measure[0] >= FIRM]
        count, span = max(firm, key=lambda measure: measure[0] / measure[1]) if firm else max(found)
        self.known = True
        self.count = count
        self._rate = count / span
        if self._sure:
            self._rate = max(self._rate, REACHED * self._over)
        elif self._saved != math.inf and self._over > self._rate:
            self._rate = math.sqrt(self._rate * self._over)
        self._span = min(LONGEST_S, max(SHORTEST_S, span / 2))
        self._step = min(LARGEST_STEP, max(SMALLEST_STEP, 1 / count))

    def _between(self, mark: Mark) -> tuple[float, float] | None:
        """Return the requests that flowed in since `mark` and the seconds that took; None if there were none."""
        count, span = self._last.admitted - mark.admitted, self._last.at - mark.at
        if count < 1 or span <= 0:
            return None
        if self._saved is not None and self._saved < math.inf:  # a pause brought no more than that
            own = count - self._saved * (self._last.pauses - mark.pauses)
            active = span - (self._last.paused_s - mark.paused_s)
            if active > 0 and own / active > count / span:
                return own, active
        return count, span
