"""A circuit breaker: a server that only fails is asked once in a while, and after some time no more.

The pattern is M. Nygard's ("Release It!", 2007): closed, open, and half open while one probe is on its way.
"""

from __future__ import annotations

import math

TRIP = 10
"""Failures in a row, without a success between, that open it."""
PROBES = 6
"""Failed probes in a row after which the endpoint is given up."""
FIRST_COOL_S = 1.0
LONGEST_COOL_S = 30.0


class Breaker:
    """Counts failures; once `open`, lets through one probe at a time, after a cool-down of 1 s that doubles to 30 s. Pure."""

    __slots__ = ("_cool_until", "failures", "open", "probes", "probing")

    def __init__(self) -> None:
        self.works()

    def works(self) -> None:
        """The server has answered: all is well."""
        self.failures = 0
        self.probes = 0
        self.open = False
        self.probing = False
        self._cool_until = 0.0

    def ready_at(self) -> float:
        """When the next probe may go; never (inf) while one is on its way: its end says more."""
        return math.inf if self.probing else self._cool_until

    def begin(self) -> None:
        """A probe goes out."""
        self.probing = True

    def failed(self, now: float, *, probe: bool) -> bool:
        """A request failed in a way that says that the server does; `probe` when it was one. Returns whether to give up."""
        if self.open:
            if probe:  # the others were sent before it opened, and say nothing new
                self.probing = False
                self.probes += 1
                self._cool_until = now + min(LONGEST_COOL_S, FIRST_COOL_S * 2**self.probes)
            return self.probes >= PROBES
        self.failures += 1
        if self.failures >= TRIP:
            self.open = True
            self._cool_until = now + FIRST_COOL_S
        return False

    def abandoned(self) -> None:
        """The probe was cancelled: another may go."""
        self.probing = False
