"""A token bucket: a rate in units per second, with a small burst."""

from __future__ import annotations

from typing import Self

MINUTE_S = 60.0
BURST_S = 0.5
"""Seconds' worth of a configured rate that may be sent at once."""
NOTHING = 1e-6
"""Amounts below this count as zero: sums of floats are inexact."""


class Bucket:
    """A bucket that `rate` units per second flow into, up to `capacity`. Pure: the time is passed in and must not go backwards.

    A request larger than the bucket is admitted when the bucket is full. It leaves a debt that the next request waits for, so no
    request waits forever.
    """

    __slots__ = ("_at", "_level", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float, *, level: float | None = None) -> None:
        self.rate = rate
        self.capacity = capacity
        self._level = capacity if level is None else min(level, capacity)
        self._at = now

    @classmethod
    def per_minute(cls, units: float, now: float) -> Self:
        """Return a bucket that admits at most `units` in any minute, the burst included."""
        capacity = max(1.0, units / MINUTE_S * BURST_S)
        return cls((units - (capacity - 1.0)) / MINUTE_S, capacity, now)

    def level(self, now: float) -> float:
        """Return the units in the bucket; negative is debt."""
        if self._level < self.capacity:
            self._level = min(self.capacity, self._level + (now - self._at) * self.rate)
        self._at = now
        return self._level

    def ready_at(self, units: float, now: float) -> float:
        """Return when `units` may be taken: `now` or later."""
        short = min(units, self.capacity) - self.level(now)
        return now if short <= NOTHING else now + short / self.rate

    def take(self, units: float, now: float) -> None:
        """Take `units`, into debt if necessary."""
        self._level = self.level(now) - units

    def give_back(self, units: float, now: float) -> None:
        """Put back units that were taken and not used; negative if more were used than taken.

        They may fill the bucket above its capacity, up to a minute's worth: they were taken within that minute.
        """
        level = self.level(now) + units
        self._level = min(level, max(self.capacity, self.rate * MINUTE_S))
