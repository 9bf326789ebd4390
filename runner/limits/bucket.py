"""A token bucket: so many units a second, and a few at once."""

from __future__ import annotations

from typing import Self

MINUTE_S = 60.0
BURST_S = 0.5
"""Seconds' worth of a configured rate that may go out at once."""
NOTHING = 1e-6
"""Less than this is nothing: sums of floats do not come out even."""


class Bucket:
    """`rate` units a second flow in, up to `capacity`. Pure: the time is passed in, and must not go backwards.

    A request larger than the bucket is let through when the bucket is full and leaves it in debt, which the next one waits off:
    so no request waits for ever.
    """

    __slots__ = ("_at", "_level", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float, *, level: float | None = None) -> None:
        self.rate = rate
        self.capacity = capacity
        self._level = capacity if level is None else min(level, capacity)
        self._at = now

    @classmethod
    def per_minute(cls, units: float, now: float) -> Self:
        """A bucket that lets through `units` in any minute, the burst included, and never more."""
        capacity = max(1.0, units / MINUTE_S * BURST_S)
        return cls((units - (capacity - 1.0)) / MINUTE_S, capacity, now)

    def level(self, now: float) -> float:
        """The units that are there; less than none is debt."""
        if self._level < self.capacity:
            self._level = min(self.capacity, self._level + (now - self._at) * self.rate)
        self._at = now
        return self._level

    def ready_at(self, units: float, now: float) -> float:
        """When `units` may be taken: `now`, or a later time."""
        short = min(units, self.capacity) - self.level(now)
        return now if short <= NOTHING else now + short / self.rate

    def take(self, units: float, now: float) -> None:
        """Take `units`, into debt if need be."""
        self._level = self.level(now) - units

    def give_back(self, units: float, now: float) -> None:
        """Return units that were taken and not used; fewer than none when more were used than taken.

        What comes back may fill the bucket above its capacity, up to a minute's worth: it was paid for within that minute.
        """
        level = self.level(now) + units
        self._level = min(level, max(self.capacity, self.rate * MINUTE_S))
