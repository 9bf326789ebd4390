"""The results of tools, written down before the model sees them: a resumed run and a replay take them from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.errors import RecordError
from runner.system import files

if TYPE_CHECKING:
    from pathlib import Path

RESULTS, DEFINITIONS = "tools.jsonl", "tools.json"
"""The files of a record: what tools returned, and what was offered to the model."""


class Recorded(msgspec.Struct, frozen=True, omit_defaults=True):
    """One result: of which row, repeat and step (requests before it, from 0), which tool with which arguments, as sent.

    `nth` tells calls of one answer that are the same: it counts those before.
    """

    id: str
    repeat: int
    step: int
    name: str
    arguments: str
    result: str
    nth: int = 0


class _Slot(NamedTuple):
    id: str
    repeat: int
    step: int
    name: str
    arguments: str
    nth: int


class ToolRecord:
    """The results and the definitions in one folder. Without a folder they are kept for this process alone."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._known: dict[_Slot, str] = {}

    def keep(self, folder: Path) -> None:
        """Use what `folder` holds, and write there from here on. Raises RecordError."""
        self._folder = folder
        self._known = {
            _Slot(one.id, one.repeat, one.step, one.name, one.arguments, one.nth): one.result for one in results_in(folder)
        }

    def definitions(self) -> list[dict[str, Any]] | None:
        """Return the tools that the record says were offered; None if it does not say. Raises RecordError."""
        file = self._folder / DEFINITIONS if self._folder is not None else None
        if file is None or not file.is_file():
            return None
        try:
            found: list[dict[str, Any]] = msgspec.json.decode(file.read_bytes(), type=list[dict[str, Any]])
        except (OSError, msgspec.DecodeError) as error:
            raise RecordError(f"{file} cannot be read: {error}") from None
        return found

    def offer(self, definitions: list[dict[str, Any]]) -> None:
        """Write down which tools are offered. Raises RecordError."""
        if self._folder is None:
            return
        try:
            files.write(self._folder / DEFINITIONS, msgspec.json.format(msgspec.json.encode(definitions), indent=2) + b"\n")
        except OSError as error:
            raise RecordError(f"{self._folder / DEFINITIONS} cannot be written: {error.strerror}") from None

    def get(self, slot: tuple[str, int, int], name: str, arguments: str, nth: int) -> str | None:
        """Return the result of a call in a slot (row id, repeat, step); None if it is not recorded."""
        return self._known.get(_Slot(*slot, name, arguments, nth))

    def put(self, slot: tuple[str, int, int], name: str, arguments: str, nth: int, result: str) -> None:
        """Record a result. Raises RecordError."""
        self._known[_Slot(*slot, name, arguments, nth)] = result
        if self._folder is None:
            return
        file = self._folder / RESULTS
        line = msgspec.json.encode(Recorded(*slot, name, arguments, result, nth)) + b"\n"
        try:
            with file.open("a+b") as stream:
                if stream.tell() and not _ends_a_line(file):
                    line = b"\n" + line
                stream.write(line)
        except OSError as error:
            raise RecordError(f"{file} cannot be written: {error.strerror}") from None


def results_in(folder: Path) -> list[Recorded]:
    """Return the results in a folder. A torn line, left by a kill, is none."""
    file = folder / RESULTS
    found: list[Recorded] = []
    for line in file.read_bytes().splitlines() if file.is_file() else ():
        try:
            found.append(msgspec.json.decode(line, type=Recorded))
        except msgspec.DecodeError:
            continue
    return found


def _ends_a_line(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read() == b"\n"
