"""A mirror of one limit of a server, kept from the remaining allowance in its headers.

A header was true when the server wrote it; more may have been sent since. It is therefore combined with the units sent after the
request that it answers (`unseen`), and headers of older requests than the latest one are ignored.

Servers mean two things by "reset". With a token bucket (OpenAI, Anthropic, Groq) it is the time until the limit is full again,
while units flow in evenly. With a window it is the time until all units are available again at once, and none before. The first
is recognised by its arithmetic: the missing units flow in within `reset`, at a rate of limit per second, minute, hour or day.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from runner.limits.bucket import NOTHING

if TYPE_CHECKING:
    from runner.limits.headers import Told

PERIODS_S = (1.0, 60.0, 3600.0, 86400.0)
ROUNDING_S = 1.1
"""Resets in whole seconds are off by up to one."""
SURE = 3
SILENT_S = 1.0
"""The wait when nothing is left and the server sends no reset."""


class Mirror:
    """The remaining units of one limit (requests or tokens), by the headers. No bound before the first one. Pure."""

    __slots__ = ("_at", "_heard", "_level", "_limit", "_longest_s", "_period", "_reset_at", "_vote")

    def __init__(self) -> None:
        self._level = math.inf
        self._limit: float | None = None
        self._at = 0.0
        self._reset_at = 0.0
        self._longest_s = SILENT_S
        self._heard = -1
        self._vote = 0
        self._period = 0.0

    @property
    def per_minute(self) -> float | None:
        """Units per minute of a limit that flows in evenly; None for a window, or if unknown."""
        return self._limit / self._period * 60.0 if self._limit and self._vote > 0 else None

    def hear(self, said: Told, now: float, *, order: int | None, age: float, unseen: float) -> None:
        """Learn from a header.

        Args:
            said: the header.
            now: the time.
            order: the number of the answered request, in order of sending; None if unknown: then it can only lower the level.
            age: seconds since that request was sent.
            unseen: units that were sent after it.
        """
        self._flow(now)
        if said.limit is not None:
            self._limit = said.limit
        if order is not None:
            if order < self._heard:
                return
            self._heard = order
        self._vote_on(said)
        rate = (self.per_minute or 0.0) / 60.0
        level = said.remaining + (rate * age if order is not None else 0.0)
        if said.limit is not None:
            level = min(level, said.limit)
        level -= unseen
        self._level = min(self._level, level) if order is None else level
        reset_s = said.reset_s if said.reset_s is not None else SILENT_S
        self._reset_at = now + reset_s
        self._longest_s = max(self._longest_s, reset_s)

    def ready_at(self, units: float, now: float) -> float:
        """Return when `units` may be sent: `now` or later."""
        self._flow(now)
        short = max(1.0, min(units, self._limit or units)) - self._level
        if short <= NOTHING:
            return now
        if rate := (self.per_minute or 0.0) / 60.0:
            return now + short / rate
        return self._reset_at

    def take(self, units: float) -> None:
        """Record that `units` are sent."""
        self._level -= units

    def give_back(self, units: float) -> None:
        """Put back units that were not used; negative if more were used."""
        self._level += units

    def _flow(self, now: float) -> None:
        """Add what has flowed in since the last call."""
        if self._level == math.inf:
            self._at = now
            return
        if rate := (self.per_minute or 0.0) / 60.0:
            self._level = min(self._level + (now - self._at) * rate, self._limit or math.inf)
        elif now >= self._reset_at:
            self._level = self._limit or math.inf
            self._reset_at = now + self._longest_s  # until the next header corrects it
        self._at = now

    def _vote_on(self, said: Told) -> None:
        """Decide over a few headers whether their arithmetic is that of a limit that flows in evenly."""
        if said.limit is None or said.reset_s is None or said.remaining >= said.limit:
            return
        missing = (said.limit - said.remaining) / said.limit
        for period in PERIODS_S:
            if abs(missing * period - said.reset_s) <= min(ROUNDING_S, 0.1 * period * missing + 0.01):
                self._period = period
                self._vote = min(SURE, self._vote + 1)
                return
        if not self._explained_by_rounding(said.reset_s, missing):
            self._vote = max(-SURE, self._vote - 1)

    def _explained_by_rounding(self, reset_s: float, missing: float) -> bool:
        """Return whether a reset in whole seconds is too coarse to decide, such as ``1s`` for a tenth of a second."""
        return self._vote >= 0 and abs(missing * 60.0 - reset_s) <= ROUNDING_S
