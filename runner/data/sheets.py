"""Read rows of workbooks. The only module of python-calamine."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import msgspec

from runner.data.files import DataFile
from runner.data.numbered import Numbered
from runner.errors import ConfigError, DataError
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.data.sources import Fields, Record

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Sheet(Numbered):
    """One sheet of a workbook (xlsx, xlsm, ods), read by python-calamine. Its first row that is not blank names the columns.

    Whole numbers are integers, empty cells null. Blank rows are skipped, and counted in `blank`. A position is the number of
    the row in the sheet, from 0. The sheet is held in memory.

    Args:
        path: the file.
        sheet: the name of the sheet; None: the first one.

    Raises:
        ConfigError: python-calamine is not installed.
        DataError: there is no such sheet, or a column with values has no name, or two have the same.
    """

    def __init__(self, path: str, sheet: str | None) -> None:
        self._file = DataFile(path, "xlsx")
        self.name = self._file.stem
        self._sheet, cells = self._read(sheet)
        filled = [(number, row) for number, row in enumerate(cells) if any(cell != "" for cell in row)]
        if not filled:
            raise DataError(f"{self._file.path}, sheet {self._sheet!r} is empty: it has no rows")
        first, header = filled[0]
        self._names = self._header(header, [row for _, row in filled[1:]])
        self._rows = {number: self._fields(row) for number, row in filled[1:]}
        self.blank = (filled[-1][0] - first + 1) - len(filled)
        self._length = len(self._rows)

    def scan(self) -> Iterator[Record]:
        """Yield every row after the header in order."""
        return iter(self._rows.items())

    def positions(self) -> array[int]:
        """Return the number of every row that is not blank."""
        return array("Q", self._rows)

    def place(self, position: int) -> str:
        """Return `position` as messages name it: with the number that the sheet shows beside the row."""
        return f"{self._file.path}, sheet {self._sheet!r}, row {position + 1}"

    def _read(self, sheet: str | None) -> tuple[str, list[list[Any]]]:
        try:
            from python_calamine import CalamineError, CalamineWorkbook
        except ImportError:
            raise ConfigError("a workbook needs a package that is not installed: pip install 'ostinato[data]'") from None
        try:
            with self._file.opened() as raw:
                book = CalamineWorkbook.from_filelike(raw)
                names = book.sheet_names
                if sheet is not None and sheet not in names:
                    hint = suggest(sheet, names) or ";"
                    raise DataError(
                        f"{self._file.path} has no sheet {sheet!r}{hint} its sheets are {', '.join(map(repr, names))}"
                    )
                chosen = names[0] if sheet is None else sheet
                return chosen, book.get_sheet_by_name(chosen).to_python(skip_empty_area=False)
        except CalamineError as error:
            raise DataError(f"{self._file.path} is not a workbook that can be read: {error}") from error

    def _header(self, header: list[Any], rows: list[list[Any]]) -> list[str]:
        """Return the name of each column; empty for one without a name or a value."""
        names = [str(_cell(cell)).strip() if cell != "" else "" for cell in header]
        for number, name in enumerate(names):
            if not name and any(len(row) > number and row[number] != "" for row in rows):
                raise DataError(
                    f"{self._file.path}, sheet {self._sheet!r}: column {number + 1} has values and no name in the header"
                )
        if doubled := sorted({name for name in names if name and names.count(name) > 1}):
            told = ", ".join(map(repr, doubled))
            raise DataError(f"{self._file.path}, sheet {self._sheet!r}: the header names {told} more than once; rename one")
        return names

    def _fields(self, row: list[Any]) -> Fields:
        return _decode(_encode({name: _cell(cell) for name, cell in zip(self._names, row, strict=False) if name}))


def _cell(cell: Any) -> Any:
    """Return the value of a cell: calamine has floats for all numbers, and "" for empty cells and errors."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return None if cell == "" else cell
