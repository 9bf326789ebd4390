"""A source whose rows have numbers, and which is quick in their order only."""

from __future__ import annotations

import itertools
import tempfile
from array import array
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.data.sources import Record

HELD = 10_000
"""Up to so many rows in another order are held in memory; more are put into a temporary file."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Numbered:
    """A source whose positions are the numbers of its rows, from 0, and which is quick in their order only."""

    name: str
    _length: int

    def scan(self) -> Iterator[Record]:
        """Yield every record in order."""
        raise NotImplementedError

    def place(self, position: int) -> str:
        """Return `position` as error messages name it."""
        raise NotImplementedError

    def positions(self) -> array[int]:
        """Return the number of every row."""
        return array("Q", range(self._length))

    def read(self, positions: Iterable[int]) -> Iterator[Record]:
        """Yield the rows at `positions`, in that order. Needs a pass over the data."""
        wanted = array("Q", positions)
        if all(one < other for one, other in itertools.pairwise(wanted)):
            return self._some(wanted)
        if len(wanted) <= HELD:
            held = dict(self._some(array("Q", sorted(set(wanted)))))
            return ((position, held[position]) for position in wanted)
        return self._spilled(wanted)

    def _some(self, wanted: array[int]) -> Iterator[Record]:
        """Yield the rows at positions that are in order."""
        remaining = iter(wanted)
        next_wanted = next(remaining, None)
        for position, fields in self.scan():
            if next_wanted is None:
                return
            if position == next_wanted:
                yield position, fields
                next_wanted = next(remaining, None)

    def _spilled(self, wanted: array[int]) -> Iterator[Record]:
        with tempfile.TemporaryFile() as file:
            offsets: dict[int, int] = {}
            for position, fields in self.scan():
                offsets[position] = file.tell()
                file.write(_encode(fields) + b"\n")
            for position in wanted:
                file.seek(offsets[position])
                yield position, _decode(file.readline())
