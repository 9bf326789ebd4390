"""Keep remote files on this machine: each content once, found by its digest, and what is known of addresses.

``files/DIGEST/NAME`` are the contents, read-only. ``known/HASH.json`` says of an address which files it stood for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import msgspec

from runner.errors import DataError
from runner.secrets import revealed
from runner.system import files, paths

if TYPE_CHECKING:
    from collections.abc import Iterator

_STALE_S = 86_400
"""Age, in seconds, after which a part that a killed process left is removed."""


class Kept(msgspec.Struct, frozen=True):
    """A content that an address had.

    Attributes:
        url: the address of the one file, without secrets; it names the revision where there are revisions.
        version: what the server called the content.
        sha256: of the content, in hex.
        bytes: its size.
        name: the name of the file.
    """

    url: str
    version: str | None
    sha256: str
    bytes: int
    name: str


class Store:
    """The folder ``data`` of OSTINATO_HOME."""

    def __init__(self) -> None:
        self._folder = paths.home() / "data"

    def path(self, kept: Kept) -> Path | None:
        """Return the file of a content; None if it is not here, or was cut."""
        path = self._folder / "files" / kept.sha256 / kept.name
        try:
            return path if path.stat().st_size == kept.bytes else None
        except OSError:
            return None

    def by_digest(self, url: str, sha256: str, name: str) -> Kept | None:
        """Return the content with a digest, if it is here under any name, and whole."""
        for path in sorted((self._folder / "files" / sha256).glob("*")):
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    continue
            kept = Kept(url, None, sha256, path.stat().st_size, name)
            if path.name != name:
                self._link(path, kept)
            return kept
        return None

    def known(self, address: str) -> list[Kept]:
        """Return what is known of an address: the files that it stood for; none if one of them is not here."""
        try:
            found = msgspec.json.decode(self._note(address).read_bytes(), type=list[Kept])
        except (OSError, msgspec.MsgspecError):
            return []
        return found if all(self.path(kept) for kept in found) else []

    def note(self, address: str, found: list[Kept]) -> None:
        """Keep what an address stands for."""
        note = self._note(address)
        with _told():
            paths.private(note.parent)
            files.write_private(note, msgspec.json.encode(found))

    @contextmanager
    def part(self) -> Iterator[BinaryIO]:
        """Open a file for what is being fetched. It is gone when the block ends, unless `keep` took it."""
        with _told():
            folder = paths.private(self._folder / "parts")
            for old in folder.iterdir():
                if old.stat().st_mtime < time.time() - _STALE_S:
                    old.unlink(missing_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                try:
                    yield cast("BinaryIO", file)
                finally:
                    Path(file.name).unlink(missing_ok=True)

    def keep(self, part: Any, kept: Kept) -> None:
        """Make a part that is whole the file of a content."""
        part.flush()
        os.fsync(part.fileno())
        Path(part.name).chmod(0o400)
        self._link(Path(part.name), kept)

    def _link(self, source: Path, kept: Kept) -> None:
        target = self._folder / "files" / kept.sha256 / kept.name
        with _told():
            paths.private(target.parent)
            draft = target.with_name(f".{kept.name}.{os.getpid()}")
            draft.unlink(missing_ok=True)
            try:
                os.link(source, draft)
            except OSError:  # a file system without hard links
                with source.open("rb") as whole, files.replacing(target, mode=0o400) as copy:
                    shutil.copyfileobj(whole, copy)
            else:
                draft.replace(target)
            files.sync_folder(target.parent)

    def _note(self, address: str) -> Path:
        full = revealed(address) or address  # two signed addresses may look alike without their queries
        return self._folder / "known" / f"{hashlib.sha256(full.encode()).hexdigest()[:32]}.json"


@contextmanager
def _told() -> Iterator[None]:
    """Say where the disk failed."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{paths.home() / 'data'} cannot be written: {error.strerror or error}") from error
