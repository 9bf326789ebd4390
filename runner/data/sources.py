"""Data sources by file format. A source yields `(position, fields)`; the dataset gives meaning to ids and targets.

A position is cheap to keep for a million records and finds the record again: a byte offset in a file, an index in a list.
"""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import msgspec

from runner.data.files import DataFile
from runner.errors import DataError

if TYPE_CHECKING:
    from typing import BinaryIO

Fields = dict[str, Any]
Record = tuple[int, Fields]


class Source(Protocol):
    """A source of records."""

    name: str
    """The default name of the data."""

    def scan(self) -> Iterator[Record]:
        """Yield every record in order."""

    def positions(self) -> array[int]:
        """Return the position of every record in order, eight bytes each."""

    def read(self, positions: Iterable[int]) -> Iterator[Record]:
        """Yield the records at `positions`, in that order."""

    def place(self, position: int) -> str:
        """Return `position` as error messages name it."""


class JsonLines:
    """A ``.jsonl`` file: one JSON object per line. Blank lines are skipped; only the current line is held.

    Args:
        path: the file, ``.gz`` and ``.zst`` allowed.
    """

    def __init__(self, path: str) -> None:
        self._file = DataFile(path)
        self.name = self._file.stem
        self.place = self._file.place
        self._decode = msgspec.json.Decoder(Fields).decode

    def scan(self) -> Iterator[Record]:
        """Yield every object in order."""
        decode = self._decode
        with self._file.opened() as file:
            position = self._file.start
            file.seek(position)
            for line in file:
                try:
                    fields = decode(line)
                except (ValueError, RecursionError) as error:
                    # Blank lines are tested for only here, so that the lines that decode do not pay for it.
                    if not line.isspace():
                        self._fail(position, line, error)
                else:
                    yield position, fields
                position += len(line)

    def positions(self) -> array[int]:
        """Return the offset of every line that is not blank; the lines are not decoded."""
        found = array("Q")
        with self._file.opened() as file:
            position = self._file.start
            file.seek(position)
            for line in file:
                if not line.isspace():
                    found.append(position)
                position += len(line)
        return found

    def read(self, positions: Iterable[int]) -> Iterator[Record]:
        """Yield the objects at `positions`."""
        decode = self._decode
        with self._file.opened(seekable=True) as file:
            for position in positions:
                file.seek(position)
                line = file.readline()
                try:
                    fields = decode(line)
                except (ValueError, RecursionError) as error:
                    self._fail(position, line, error)
                yield position, fields

    def _fail(self, position: int, line: bytes, error: Exception) -> NoReturn:
        if isinstance(error, UnicodeDecodeError) or not _is_utf8(line):
            raise self._file.not_utf8(position, line) from error
        place = self._file.place(position)
        if isinstance(error, msgspec.ValidationError) and (got := _first_type(line)) != "an object":
            hint = "; a file with one JSON list is data=json" if got == "a list" and position == self._file.start else ""
            raise DataError(f'{place} is {got}, where each line must be an object such as {{"question": ...}}{hint}') from error
        reason, _, column = _json_reason(line.rstrip(), error)
        hint = (
            "; a file with one JSON list is data=json" if line.lstrip().startswith(b"[") and position == self._file.start else ""
        )
        raise DataError(f"{place}, column {column}: {reason}{hint}") from error


class Delimited:
    """A CSV or TSV file with a header line. Values are strings; quoted values may hold line breaks; blank lines are skipped.

    Args:
        path: the file, ``.gz`` and ``.zst`` allowed.
        delimiter: ``","`` or a tab.
    """

    def __init__(self, path: str, delimiter: str) -> None:
        self._file = DataFile(path)
        self.name = self._file.stem
        self.place = self._file.place
        self._delimiter = delimiter
        # The module's limit is one number for the whole process: raised, never lowered, so that long texts can be read.
        csv.field_size_limit(max(csv.field_size_limit(), (1 << 31) - 1))
        with self._file.opened() as file:
            file.seek(self._file.start)
            self._header = next((cells for _, cells in self._cells(file, self._file.start)), [])
        repeated = sorted({name for name in self._header if self._header.count(name) > 1})
        if repeated:
            names = ", ".join(repr(name) for name in repeated)
            raise DataError(f"{self._file.place(self._file.start)}: the header names {names} more than once; rename one")

    def scan(self) -> Iterator[Record]:
        """Yield every record after the header in order."""
        header = self._header
        width = len(header)
        with self._file.opened() as file:
            file.seek(self._file.start)
            records = self._cells(file, self._file.start)
            next(records, None)
            for position, cells in records:
                if len(cells) != width:
                    self._ragged(position, cells)
                yield position, dict(zip(header, cells, strict=True))

    def positions(self) -> array[int]:
        """Return the offset at which each record after the header begins."""
        return array("Q", (position for position, _ in self.scan()))

    def read(self, positions: Iterable[int]) -> Iterator[Record]:
        """Yield the records at `positions`."""
        with self._file.opened(seekable=True) as file:
            for position in positions:
                file.seek(position)
                _, cells = next(self._cells(file, position))
                yield position, dict(zip(self._header, cells, strict=True))

    def _cells(self, file: BinaryIO, position: int) -> Iterator[tuple[int, list[str]]]:
        """Yield `(offset, cells)` of each record from where `file` stands, `position`, on."""
        end = position

        def lines() -> Iterator[str]:
            nonlocal end
            for line in file:
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    raise self._file.not_utf8(end, line) from error
                end += len(line)
                yield text

        # The reader takes exactly the lines of one record before it yields, so `end` is where the next record begins.
        reader = csv.reader(lines(), delimiter=self._delimiter, strict=True)
        while True:
            position = end
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise DataError(f'{self._file.place(position)}: {error}; is a quote (") missing or not doubled?') from error
            if cells is None:
                return
            if cells:
                yield position, cells

    def _ragged(self, position: int, cells: list[str]) -> NoReturn:
        raise DataError(
            f"{self._file.place(position)} has {len(cells)} values, where the header names {len(self._header)} columns; "
            f"a value that holds {self._delimiter!r} must be quoted"
        )


class Items:
    """Rows held in memory: given inline, or the list in a ``.json`` file (read whole; for many rows use JSONL).

    Args:
        name: name of the data.
        rows: the rows, JSON-like.
        place: the list as messages name it: ``rows.json``.

    Raises:
        DataError: there are no rows, or one is not an object with string keys.
    """

    def __init__(self, name: str, rows: Iterable[Any], place: str) -> None:
        self.name = name
        self._place = place
        self._rows: list[Fields] = []
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping) or not all(isinstance(key, str) for key in row):
                raise DataError(f"{self.place(index)} is not an object with column names as keys: {str(row)[:80]}")
            self._rows.append(dict(row))
        if not self._rows:
            raise DataError(f"{place} is an empty list: it has no rows")

    @classmethod
    def from_json(cls, path: str) -> Items:
        """Read the list of objects in the JSON file `path`.

        Raises:
            DataError: it is not JSON, or not a list.
        """
        file = DataFile(path)
        with file.opened() as opened:
            opened.seek(file.start)
            text = opened.read()
        try:
            rows = msgspec.json.decode(text)
        except (ValueError, RecursionError) as error:
            if not _is_utf8(text):
                raise _not_utf8_within(file, text) from error
            reason, line, column = _json_reason(text, error)
            hint = "; a file with one JSON object per line is data=jsonl" if "Extra data" in reason else ""
            raise DataError(f"{file.path}, line {line}, column {column}: {reason}{hint}") from error
        if not isinstance(rows, list):
            raise DataError(f"{file.path} is {_first_type(text)}, where a list of objects is needed: [{{...}}, {{...}}]")
        return cls(file.stem, rows, str(file.path))

    def scan(self) -> Iterator[Record]:
        """Yield every row in order."""
        return iter(enumerate(self._rows))

    def positions(self) -> array[int]:
        """Return the index of every row."""
        return array("Q", range(len(self._rows)))

    def read(self, positions: Iterable[int]) -> Iterator[Record]:
        """Yield the rows at the indices `positions`."""
        rows = self._rows
        return ((position, rows[position]) for position in positions)

    def place(self, position: int) -> str:
        """Return the row at index `position` as messages name it, counted from 1."""
        return f"{self._place}, item {position + 1}"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8_within(file: DataFile, text: bytes) -> DataError:
    position = file.start
    for line in text.splitlines(keepends=True):
        if not _is_utf8(line):
            return file.not_utf8(position, line)
        position += len(line)
    return file.not_utf8(file.start, text)


def _json_reason(text: bytes, error: Exception) -> tuple[str, int, int]:
    """Return why `text`, which msgspec refused with `error`, is not JSON, and the line and column (from 1) where that shows.

    The standard library's parser explains it better and points at the exact character; it is also more lenient.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as better:
        return f"not JSON: {better.msg}", better.lineno, better.colno
    except (ValueError, RecursionError):
        pass
    if isinstance(error, RecursionError):
        return "nested too deeply to be read", 1, 1
    return f"not JSON: {str(error).removeprefix('JSON is malformed: ')} (there is no NaN or Infinity in JSON)", 1, 1


def _first_type(text: bytes) -> str:
    """Return the type of JSON text, with its article, from its first character."""
    kinds = {b"{": "an object", b"[": "a list", b'"': "a string", b"t": "a boolean", b"f": "a boolean", b"n": "null"}
    return kinds.get(text.lstrip()[:1], "a number")
