"""Several files as one source, in the order of their names."""

from __future__ import annotations

import glob
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING

from runner.errors import DataError
from runner.system.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runner.data.sources import Record, Source

_BITS = 48
"""Bits of a position that are the file's own; those above are the number of the file."""
_OWN = (1 << _BITS) - 1


class Joined:
    """The records of several sources, one after the other.

    Args:
        name: the default name of the data.
        sources: at least one, at most 65,536.
    """

    def __init__(self, name: str, sources: Sequence[Source]) -> None:
        self.name = name
        self._sources = sources

    def scan(self) -> Iterator[Record]:
        """Yield every record in order."""
        for number, source in enumerate(self._sources):
            for position, fields in source.scan():
                yield number << _BITS | position, fields

    def positions(self) -> array[int]:
        """Return the position of every record in order."""
        return array("Q", (n << _BITS | own for n, source in enumerate(self._sources) for own in source.positions()))

    def read(self, positions: Iterable[int]) -> Iterator[Record]:
        """Yield the records at `positions`, in that order. Each file is read once, in its own order of them."""
        wanted = array("Q", positions)
        own: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
        for position in wanted:
            own[position >> _BITS].append(position & _OWN)
        readers = {number: self._sources[number].read(positions) for number, positions in own.items()}
        for position in wanted:
            yield position, next(readers[position >> _BITS])[1]

    def place(self, position: int) -> str:
        """Return `position` as error messages name it."""
        return self._sources[position >> _BITS].place(position & _OWN)


def matching(path: str) -> list[str]:
    """Return the files that a path with ``*``, ``?`` or ``[...]`` stands for, in the order of their names; else the path itself.

    Raises:
        DataError: no file matches.
    """
    if not glob.has_magic(path) or expanded(path).exists():
        return [path]
    found = sorted(glob.glob(str(expanded(path)), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not found:
        raise DataError(f"{path}: no file matches")
    return found
