"""Read the members of a zip whatever packed them: Python's zipfile knows zstd (method 93) from 3.14 on only."""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

from runner.data.files import zstd_module
from runner.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

ZSTD = 93
"""APPNOTE.TXT 6.3.8, section 4.4.5."""

_LOCAL = struct.Struct("<4s5H3L2H")
"""The local header before each member (APPNOTE.TXT, 4.3.7); the last two are the lengths of its name and its extra field."""


class Members:
    """The members of a zip by name, each read whole.

    Raises:
        DataError: it is not a zip.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
        self._path = path
        self.names = self._zip.namelist()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """Return the content of a member. Raises DataError if it is broken, ConfigError if zstd is needed and not installed."""
        member = self._zip.getinfo(name)
        try:
            return self._unpacked(member) if member.compress_type == ZSTD else self._zip.read(member)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise DataError(f"{self._path}: {name} cannot be read: {error}") from None

    def _unpacked(self, member: zipfile.ZipInfo) -> bytes:
        module, file = zstd_module(), self._zip.fp
        if file is None:
            raise zipfile.BadZipFile("the file is closed")
        file.seek(member.header_offset)
        *_, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        file.seek(name + extra, 1)
        packed = file.read(member.compress_size)
        try:
            content: bytes = module.ZstdDecompressor().decompress(packed, member.file_size + 1)
        except module.ZstdError as error:
            raise zipfile.BadZipFile(str(error)) from None
        if zlib.crc32(content) != member.CRC:
            raise zipfile.BadZipFile("its checksum is wrong")
        return content
