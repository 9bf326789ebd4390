"""Tell a fault of one row from a fault of the endpoint, by what other rows are answered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.errors import LMError

SEVERAL = 3
"""Different rows that must be refused in the same words, with no answer in between, until the endpoint is at fault."""
_NUMBERS = re.compile(r"\S*\d\S*")  # positions, lengths and ids differ from row to row


class Complaints:
    """The refusals that came since the last answer. Pure.

    Attributes:
        differ: whether two rows have been refused in different words: then the rows are at fault.
    """

    __slots__ = ("_rows", "_words", "differ")

    def __init__(self) -> None:
        self._words = ""
        self._rows: set[object] = set()
        self.differ = False

    def heard(self, error: LMError, row: object) -> int:
        """Record a refusal of `row` (None: unknown). Return how many rows in succession have been refused in these words."""
        words = f"{error.code} {error.status} {_NUMBERS.sub('#', error.message)}"
        if words != self._words:
            self.differ = self.differ or bool(self._words)
            self._words = words
            self._rows.clear()
        self._rows.add(object() if row is None else row)
        return len(self._rows)

    def answered(self) -> None:
        """Record an answer."""
        if self._words:
            self._words = ""
            self._rows.clear()
