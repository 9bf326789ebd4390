"""Detect that a server is overloaded: its latency against its own past, confirmed by throughput.

The signal is the gradient of Netflix's concurrency-limits (Gradient2Limit: the long-term latency divided by the short-term one,
with a tolerance of 2), the idea of TCP Vegas (L. Brakmo and L. Peterson, 1995). Latencies of language models vary tenfold with
the length of the answers, so geometric means over at least 100 answers are compared. Since longer answers look like a slower
server, the signal alone decides nothing: the window is shrunk on trial. A server with a queue answers as many requests per second
with fewer in flight, and the smaller window stays. If throughput falls with the window, the window is restored and the measured
latency becomes the new baseline.
"""

from __future__ import annotations

import math

SAMPLE = 100
"""The fewest answers in a sample; a window of 256 takes four times 256."""
WINDOWS = 4
TOLERANCE = 2.0
"""Latency relative to its baseline that counts as slow."""
RECOVERED = 1.5
"""Latency relative to its baseline at which the window may grow again."""
SHRINK = 0.75
SAME = 0.88
"""Throughput relative to that before a trial that counts as unchanged: half way between no loss (1) and full loss (0.75)."""
FULL = 0.9
"""The mean of requests in flight, relative to the window, that counts as full."""
INSTANT_S = 1e-6
UP, DOWN = 0.1, 0.5
"""How quickly the baseline follows slower and faster samples."""


class Trend:
    """Judge answers, one sample at a time. Samples in which the window was not full are dropped. Pure.

    Attributes:
        slow: whether latency is high, so that the window must not grow.
    """

    __slots__ = ("_baseline", "_begun", "_high", "_in_flight", "_sample", "_skip", "_trial", "slow")

    def __init__(self) -> None:
        self.slow = False
        self._baseline: float | None = None  # log of seconds
        self._high = 0
        self._trial: tuple[float, float] | None = None  # the window before the trial, and its throughput
        self._skip = False
        self._restart()

    def note(self, now: float, seconds: float, in_flight: int, size: float) -> float | None:
        """Record an answer that took `seconds`, with `in_flight` requests (itself included) in a window of `size`.

        Returns:
            The size that the window should take; None leaves it as it is.
        """
        if size == math.inf:
            return None  # there is no window to narrow
        sample = self._sample
        if not sample:
            self._begun = now
        sample.append(seconds)
        self._in_flight += in_flight
        count = len(sample)
        if count < SAMPLE or count < WINDOWS * size:
            return None
        if self._skip:
            self._skip = False
            self._restart()
            return None
        latency = sum(map(math.log, (max(seconds, INSTANT_S) for seconds in sample))) / count
        per_second = (count - 1) / max(now - self._begun, INSTANT_S)
        full = self._in_flight >= FULL * size * count
        self._restart()
        if full:
            return self._judge(latency, per_second, size)
        self._trial = None
        self._high = 0
        self.slow = False
        return None

    def interrupted(self) -> None:
        """Drop the current measurement: the window was cut for another reason."""
        self._trial = None
        self._high = 0
        self._restart()

    def _restart(self) -> None:
        self._sample: list[float] = []
        self._in_flight = 0
        self._begun = 0.0

    def _judge(self, latency: float, per_second: float, size: float) -> float | None:
        if self._baseline is None:
            self._baseline = latency
        over = math.exp(latency - self._baseline)
        self.slow = over > (RECOVERED if self.slow else TOLERANCE)
        if self._trial is not None:
            before, before_per_second = self._trial
            self._trial = None
            if per_second < SAME * before_per_second:
                self._baseline = latency  # fewer in flight have only cost throughput: answers take this long now
                self._high = 0
                self.slow = False
                return before
        if over <= TOLERANCE:
            self._high = 0
            if not self.slow:
                self._baseline += (UP if latency > self._baseline else DOWN) * (latency - self._baseline)
            return None
        self._high += 1
        if self._high < 2 or size <= 1:  # noqa: PLR2004 - a single sample may be chance
            return None
        self._trial = (size, per_second)
        self._skip = True  # the next sample holds answers to requests of the larger window
        return math.floor(size * SHRINK)
