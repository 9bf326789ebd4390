"""Decide how far to read ahead on disk: a repeated run reads its answers in the order in which they were stored."""

from __future__ import annotations

NEAR = 64
"""Rows by which a lookup may be off and still count as in order: answers are stored in the order of arrival."""


class ReadAhead:
    """Guess as operating systems do for files: the distance doubles while lookups are in order, and drops to zero otherwise.

    Args:
        most: the most rows to read beyond the requested one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._next: int | None = None

    def beyond(self, place: int) -> int:
        """Return how many rows to read beyond the requested one, which is at `place` on disk."""
        in_order = self._next is not None and abs(place - self._next) <= NEAR
        self._size = min(max(1, 2 * self._size), self._most) if in_order else 0
        self._next = place + self._size + 1
        return self._size
