"""One data file on disk: opening it, its BOM and packing, the line of a position, and every way in which reading can fail."""

from __future__ import annotations

import gzip
import io
import shutil
import sys
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from runner.data.formats import PACKED, mistaken
from runner.errors import ConfigError, DataError
from runner.system.paths import expanded
from runner.wording.suggest import closest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.data.formats import FileKind

BOM = b"\xef\xbb\xbf"
"""The mark that Excel and Notepad put before UTF-8 text. Accepted, and not part of the first column's name."""


class DataFile:
    """A file that is read again and again, and must be the same file each time.

    A position is a byte offset into the (unpacked) file. Names ending in ``.gz`` and ``.zst`` are unpacked on the way.

    Args:
        path: the file; ``~`` is expanded, and a relative path starts at the working directory.
        kind: what it holds; None: text, which is unpacked.

    Raises:
        ConfigError: unpacking it needs a package that is not installed.
        DataError: there is no such file, or it is a directory or something else that cannot be read twice, or it is empty, or
            it is of another kind.
    """

    def __init__(self, path: str, kind: FileKind | None = None) -> None:
        self.path = expanded(path)
        self.packed = kind is None and self.path.suffix in PACKED
        self.stem = Path(self.path.stem).stem if self.packed else self.path.stem
        self._require_file()
        self._state = self._stat()
        with self.opened() as file:
            head = file.read(8)
        self.start = 3 if head.startswith(BOM) else 0
        if not head[self.start :]:
            raise DataError(f"{self.path} is empty: it has no rows")
        if other := mistaken(self.path.name, head, kind):
            raise DataError(f"{self.path} {other}")

    @contextmanager
    def opened(self, *, seekable: bool = False) -> Iterator[BinaryIO]:
        """Open the file for one pass, at its first byte (the BOM included).

        Args:
            seekable: the pass jumps about. A packed file is then unpacked into an anonymous temporary file first, because
                each jump backwards in gzip starts from the beginning again.

        Raises:
            DataError: it cannot be read, or it has changed since it was first opened.
        """
        try:
            with self._unpacked() if seekable and self.packed else self._raw() as file:
                if self._stat() != self._state:
                    raise DataError(f"{self.path} has changed since this dataset was opened: open it again")
                yield file
        except _failures() as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{self.path} cannot be read: {reason}") from error

    def line_at(self, position: int) -> int:
        """Return the number (from 1) of the line at `position`. Reads the file up to there: for errors only."""
        line = 1
        with self.opened() as file:
            left = position
            while left > 0 and (block := file.read(min(left, 1 << 20))):
                line += block.count(b"\n")
                left -= len(block)
        return line

    def place(self, position: int) -> str:
        """Return `position` as messages name it: ``data/test.jsonl, line 3``."""
        return f"{self.path}, line {self.line_at(position)}"

    def not_utf8(self, position: int, line: bytes) -> DataError:
        """Return the error for the `line` at `position`, which is not UTF-8."""
        bad = 0
        try:
            line.decode()
        except UnicodeDecodeError as error:
            bad = error.start
        hint = "UTF-16, it seems: " if self._begins_as_utf16() else ""
        return DataError(
            f"{self.place(position)}: byte {position + bad} (0x{line[bad]:02x}) is not UTF-8; {hint}save the file as UTF-8"
        )

    def _begins_as_utf16(self) -> bool:
        with self.opened() as file:
            return file.read(2) in {b"\xff\xfe", b"\xfe\xff"}

    def _raw(self) -> BinaryIO:
        if not self.packed:
            return self.path.open("rb")
        return cast("BinaryIO", gzip.open(self.path) if self.path.suffix == ".gz" else zstd_module().open(self.path))

    @contextmanager
    def _unpacked(self) -> Iterator[BinaryIO]:
        with self._raw() as packed, tempfile.TemporaryFile() as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
            plain.seek(0, io.SEEK_SET)
            yield cast("BinaryIO", plain)

    def _stat(self) -> tuple[int, int]:
        stat = self.path.stat()
        return stat.st_size, stat.st_mtime_ns

    def _require_file(self) -> None:
        try:
            if self.path.is_file():
                return
            kind = "is a directory" if self.path.is_dir() else "is not a regular file" if self.path.exists() else None
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from error
        if kind:
            raise DataError(f"{self.path} {kind}: name one data file")
        folder = self.path.absolute().parent
        siblings = [entry.name for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []
        near = closest(self.path.name, siblings)
        hint = f"; did you mean {str(self.path.parent / near)!r}?" if near else f" (looked in {folder})"
        raise DataError(f"{self.path}: no such file{hint}")


def zstd_module() -> Any:
    """Return the module that reads ``.zst``. Of those that are kept, it alone notices that a file was cut off."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise ConfigError("a .zst file needs a package that is not installed: pip install 'ostinato[data]'") from None
    return zstd


def _failures() -> tuple[type[Exception], ...]:
    """Return what reading raises; the module for ``.zst`` has an error of its own, if it is in use."""
    module = sys.modules.get("compression.zstd") or sys.modules.get("backports.zstd")
    return (OSError, EOFError, zlib.error, *([module.ZstdError] if module else []))
