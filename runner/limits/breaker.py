"""A circuit breaker: a server that fails every request gets single probes, and after some of those no more requests.

The pattern is M. Nygard's ("Release It!", 2007): closed, open, and half open while a probe is in flight.
"""

from __future__ import annotations

import math

TRIP = 10
"""Consecutive failures that open it."""
PROBES = 6
"""Consecutive failed probes after which the endpoint is closed."""
FIRST_COOL_S = 1.0
LONGEST_COOL_S = 30.0


class Breaker:
    """Count failures; when `open`, admit one probe at a time, after a cool-down of 1 s that doubles up to 30 s. Pure."""

    __slots__ = ("_cool_until", "failures", "open", "probes", "probing")

    def __init__(self) -> None:
        self.works()

    def works(self) -> None:
        """Close the breaker: the server has answered."""
        self.failures = 0
        self.probes = 0
        self.open = False
        self.probing = False
        self._cool_until = 0.0

    def ready_at(self) -> float:
        """Return when the next probe may be sent; inf while one is in flight."""
        return math.inf if self.probing else self._cool_until

    def begin(self) -> None:
        """Record that a probe is sent."""
        self.probing = True

    def failed(self, now: float, *, probe: bool) -> bool:
        """Record a failure of the server, of a `probe` or of another request. Return whether to close the endpoint."""
        if self.open:
            if probe:  # the others were sent before it opened
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
        """Record that the probe was cancelled: another one may be sent."""
        self.probing = False
