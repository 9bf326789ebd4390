"""Mark the keys that a folder holds, so that a key without a mark need not be looked for on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MARKS = 2**20
MOST = _MARKS // 4
"""The most keys that are worth marking: with more of them, most other keys would have the mark of one."""
FIRST = 16
"""Lookups in vain after which the keys of a small folder are listed."""
KEYS_PER_LOOKUP = 8
"""Keys that are listed in the time of one lookup in vain."""


class Marks:
    """Marks for keys, by their hash. Two keys with one mark cost a look at the disk.

    Attributes:
        complete_since: the number of the folder's changes (`Table.changes`) when all of its keys were marked; None: some may
            lack a mark.
    """

    __slots__ = ("_marks", "_next", "_vain", "complete_since")

    def __init__(self) -> None:
        self._marks = bytearray(_MARKS)
        self.complete_since: int | None = None
        self._vain, self._next = 0, FIRST

    def __contains__(self, key: str) -> bool:
        return bool(self._marks[hash(key) % _MARKS])

    def add(self, keys: Iterable[str]) -> None:
        """Mark keys."""
        marks = self._marks
        for key in keys:
            marks[hash(key) % _MARKS] = 1

    def begin_again(self) -> None:
        """Forget that all keys are marked, because others have stored some."""
        self.complete_since, self._vain, self._next = None, 0, FIRST

    def count_vain(self) -> int | None:
        """Count a lookup on disk that found nothing.

        Returns:
            The size up to which a folder is worth listing now: as long as the lookups in vain have taken. None: not now.
        """
        self._vain += 1
        if self.complete_since is not None or self._vain < self._next:
            return None
        self._next = 2 * self._vain
        return min(MOST, KEYS_PER_LOOKUP * self._vain)
