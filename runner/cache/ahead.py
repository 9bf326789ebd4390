"""How far to read ahead on disk: what is played again asks for its answers in the order in which they were stored."""

from __future__ import annotations

NEAR = 64
"""Rows by which a reader may stray and still be in order: answers that were in flight together are stored as they come."""


class ReadAhead:
    """A guess, as operating systems make it for files: it doubles while it proves right, and is given up where it does not.

    Args:
        most: rows that may be read beyond the one that was asked for.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._next: int | None = None

    def beyond(self, place: int) -> int:
        """Rows to read beyond the one at `place`, which was asked for and had to come from disk."""
        in_order = self._next is not None and abs(place - self._next) <= NEAR
        self._size = min(max(1, 2 * self._size), self._most) if in_order else 0
        self._next = place + self._size + 1
        return self._size
