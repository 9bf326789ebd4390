"""The attachments of one run: found by what a row says, kept by the hash of their bytes, read again when they are sent."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import msgspec

from runner.attachments.media import Kind, allowed, recognise, told
from runner.errors import DataError, RecordError
from runner.secrets import redact
from runner.system import files
from runner.system.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

FOLDER, INDEX = "files", "index.jsonl"
"""The folder in a record, and the file in it that says which source had which bytes."""
MAX_BYTES = 64 * 2**20
"""The largest local file that is attached, as what is downloaded (`runner.network.client`)."""
_FETCHES = 16
_LONG = 4096
"""Text longer than any path."""
_ENDINGS: dict[Kind, str] = {"image": "png", "audio": "wav", "file": "pdf"}


class Found(NamedTuple):
    """One attachment: its name in the store (``<sha256>.<ending>``), and the file name of its source, if that has one."""

    name: str
    filename: str | None


class Attachments:
    """Finds images, sounds and files, and keeps their bytes under their hash.

    A source is a path, an ``http(s)://`` URL, a ``data:`` URL, bytes as base64 text (as Parquet gives them), or a mapping with
    ``bytes`` or ``path`` (as Hugging Face's datasets have). What a source held when it was first read is what it holds for the
    rest of the run, and for whoever resumes or replays it: the index says so, by the hash of the source.

    Args:
        base: the folder that relative paths start from.
        fetch: returns the bytes at a URL, or raises OSError; None: nothing is fetched.

    Attributes:
        base: as given.
        kinds: what was found so far.
        paths: the local files that were read so far, by what the rows call them.
        folder: where bytes are kept; None: nowhere yet. Paths are then checked, and URLs are not fetched.
    """

    def __init__(self, base: Path, *, fetch: Callable[[str], bytes] | None = None) -> None:
        self.folder: Path | None = None
        self.kinds: set[Kind] = set()
        self.paths: dict[str, Path] = {}
        self.base = base
        self._fetch = fetch
        self._sealed = False
        self._known: dict[str, Found] = {}
        self._kept: set[str] = set()
        self._lock = threading.Lock()

    def keep(self, folder: Path, *, sealed: bool = False) -> None:
        """Keep bytes in `folder` from here on, and use what is kept there.

        Args:
            folder: where; it is made when there is something to keep.
            sealed: read nothing else, neither paths nor URLs: the folder is that of a capsule.
        """
        self.folder, self._sealed = folder, sealed
        self._known.clear()
        self._known |= {entry["source"]: Found(entry["file"], entry["filename"]) for entry in index_lines(folder)}

    def find(self, source: Any, kind: Kind) -> Found:
        """Return the attachment that a row names.

        Raises:
            DataError: it cannot be read, or is not an attachment of this kind.
        """
        self.kinds.add(kind)
        if isinstance(source, dict):
            return self._of_mapping(source, kind)
        if not isinstance(source, str) or not source:
            raise DataError(f"{_shown(source)} is not {_article(kind)}: give a path, a URL or bytes")
        content = _of_data_url(source) if source.startswith("data:") else _of_base64(source)
        if content is not None:
            return self._keep(content, kind, "its content")
        return self._at(source, kind)

    def _at(self, source: str, kind: Kind) -> Found:
        """Return the attachment at a path or a URL, as it was when it was first read."""
        digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        if (known := self._known.get(digest)) is not None:
            self._check_kind(known.name, kind, _shown(source))
            return known
        if self.folder is None and _is_url(source) and not self._sealed:
            return Found(f"{'0' * 64}.{_ENDINGS[kind]}", None)
        content, filename = self._read(source)
        found = self._keep(content, kind, _shown(source), filename)
        with self._lock:
            self._known[digest] = found
            self._note({"source": digest, "file": found.name, "filename": filename})
        return found

    def find_all(self, sources: Iterable[tuple[Any, Kind]]) -> None:
        """Fetch those of the sources that are URLs, several at a time. What fails is said by `find`."""
        urls = {(url, kind) for url, kind in sources if isinstance(url, str) and _is_url(url)}

        def find(wanted: tuple[str, Kind]) -> None:
            with contextlib.suppress(DataError):  # said where the row is made
                self.find(*wanted)

        if len(urls) == 1:
            find(urls.pop())
        elif urls:
            with ThreadPoolExecutor(_FETCHES) as pool:
                list(pool.map(find, urls))

    def read(self, name: str) -> bytes:
        """Return the bytes of an attachment. Raises RecordError if they are gone or have changed."""
        if self.folder is None:
            raise RecordError(f"the attachment {name} is kept nowhere yet: it is part of a run")
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise RecordError(f"{self.folder / name} cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != name.partition(".")[0]:
            raise RecordError(f"the attachment {name} has changed: its bytes are not those of its hash")
        return content

    def _of_mapping(self, source: dict[str, Any], kind: Kind) -> Found:
        content, path = source.get("bytes"), source.get("path")
        if isinstance(content, str) and content:
            try:
                raw = base64.b64decode(content, validate=True)
            except (binascii.Error, ValueError):
                raise DataError(f"its bytes are not base64: {_shown(content)}") from None
            name = path.rpartition("/")[2] if isinstance(path, str) and path else None
            return self._keep(raw, kind, _shown(path or "its bytes"), name)
        if isinstance(path, str) and path:
            return self.find(path, kind)
        raise DataError(f"{_shown(source)} is not {_article(kind)}: it has neither bytes nor path")

    def _read(self, source: str) -> tuple[bytes, str | None]:
        """Return the bytes of a path or a URL, and the file name in it. Raises DataError."""
        if self._sealed:
            raise DataError(f"{_shown(source)} is not among the files of the record")
        if _is_url(source):
            if self._fetch is None:
                raise DataError(f"{_shown(source)} is not fetched here")
            try:
                return self._fetch(source), unquote(urlsplit(source).path.rpartition("/")[2]) or None
            except OSError as error:
                raise DataError(f"{_shown(source)} cannot be fetched: {error}") from None
        if len(source) > _LONG or "\0" in source:
            raise DataError(f"{_shown(source)} is not a path, a URL or base64 of a known format")
        path = self.base / expanded(source)
        try:
            with path.open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        if len(content) > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES // 2**20} MB, which no model takes; make it smaller")
        self.paths[source] = path
        return content, path.name

    def _keep(self, content: bytes, kind: Kind, shown: str, filename: str | None = None) -> Found:
        """Keep the bytes in the folder, if there is one. Raises DataError if they are not of this kind."""
        media = recognise(content)
        if media is None:
            raise DataError(f"{shown} is {told(content)}; {_article(kind)} has to be {allowed(kind)}")
        name = f"{hashlib.sha256(content).hexdigest()}.{media.ending}"
        self._check_kind(name, kind, shown)
        self._write(name, content)
        return Found(name, filename)

    def _check_kind(self, name: str, kind: Kind, shown: str) -> None:
        ending = name.rpartition(".")[2]
        if ending.upper() not in allowed(kind).split(", "):
            raise DataError(f"{shown} is {ending.upper()}; {_article(kind)} has to be {allowed(kind)}")

    def _write(self, name: str, content: bytes) -> None:
        folder = self.folder
        if folder is None or self._sealed or name in self._kept:
            return
        target = folder / name
        try:
            folder.mkdir(exist_ok=True)
            if not target.is_file():
                files.write(target, content)
        except OSError as error:
            raise RecordError(f"{target} cannot be written: {error.strerror}") from None
        self._kept.add(name)

    def _note(self, entry: dict[str, Any]) -> None:
        """Add a line to the index. A torn one is read as none."""
        if self.folder is None or self._sealed:
            return
        try:
            with (self.folder / INDEX).open("ab") as stream:
                stream.write(b"\n" * _is_torn(self.folder / INDEX) + msgspec.json.encode(entry) + b"\n")
        except OSError as error:
            raise RecordError(f"{self.folder / INDEX} cannot be written: {error.strerror}") from None


def index_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the index in a folder: ``{"source", "file", "filename"}``. A torn line is none."""
    index = folder / INDEX
    found: list[dict[str, Any]] = []
    for line in index.read_bytes().splitlines() if index.is_file() else ():
        try:
            entry = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("source"), str) and isinstance(entry.get("file"), str):
            found.append({"filename": None, **entry})
    return found


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _is_torn(file: Path) -> bool:
    with file.open("rb") as stream:
        if not stream.seek(0, 2):
            return False
        stream.seek(-1, 2)
        return stream.read(1) != b"\n"


def _of_data_url(source: str) -> bytes:
    head, comma, text = source.partition(",")
    if comma and not head.endswith(";base64"):
        return unquote_to_bytes(text)
    try:
        return base64.b64decode(text if comma else "=", validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{_shown(source)} is not a data: URL with base64") from None


def _of_base64(source: str) -> bytes | None:
    """Return the bytes that base64 text stands for; None if it is not base64 of a known format, but a path, perhaps."""
    if len(source) % 4 or len(source) < 16:  # noqa: PLR2004 - the first bytes of any format
        return None
    try:
        if recognise(base64.b64decode(source[:32][: len(source) // 4 * 4], validate=True)) is None:
            return None
        return base64.b64decode(source, validate=True)
    except (binascii.Error, ValueError):
        return None


def _article(kind: Kind) -> str:
    return {"image": "an image", "audio": "a sound", "file": "a file"}[kind]


def _shown(source: Any) -> str:
    """Return a source as messages show it: short, and without secrets."""
    text = redact(source if isinstance(source, str) else repr(source))
    return repr(text if len(text) <= 80 else f"{text[:77]}...")  # noqa: PLR2004
