"""A circuit breaker: a server that fails every request gets single probes, and after some of those no more requests.

The pattern is M. Nygard's ("Release It!", 2007): closed, open, and half open while a probe is in flight.
"""

from __future__ import annotations

import math

TRIP = 10
"""Different rows that must fail in succession to open it. A few rows may fail always, and say nothing about the server."""
PROBES = 6
"""Consecutive failed probes after which the endpoint is closed."""
FIRST_COOL_S = 1.0
LONGEST_COOL_S = 30.0


class Breaker:
    """Count rows that fail; when `open`, admit one probe at a time, after a cool-down of 1 s that doubles up to 30 s. Pure.

    Attributes:
        rows: those that have failed since the last answer.
    """

    __slots__ = ("_cool_until", "open", "probes", "probing", "rows")

    def __init__(self) -> None:
        self.rows: set[object] = set()
        self.works()

    def works(self) -> None:
        """Close the breaker: the server has answered."""
        self.rows = set()
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

    def failed(self, now: float, *, probe: bool, row: object = None) -> bool:
        """Record a failure of the server.

        Args:
            now: the time.
            probe: whether a probe has failed.
            row: the row whose request it was; None if the failure has nothing to do with the row, or it is unknown.

        Returns:
            Whether to close the endpoint.
        """
        if self.open:
            if probe:  # the others were sent before it opened
                self.probing = False
                self.probes += 1
                self._cool_until = now + min(LONGEST_COOL_S, FIRST_COOL_S * 2**self.probes)
            return self.probes >= PROBES
        self.rows.add(object() if row is None else row)
        if len(self.rows) >= TRIP:
            self.open = True
            self._cool_until = now + FIRST_COOL_S
        return False

    def abandoned(self) -> None:
        """Record that the probe was cancelled: another one may be sent."""
        self.probing = False
