"""Write and read the container of a packed run: a zip with one way to write it, which is read as untrusted input.

This module does not know what the files mean. The last bytes of a capsule, the zip's comment, are ``ostinato capsule 1 sha256:``
and the digest of all bytes before the digest, so a changed, missing or added byte is found before anything is parsed.
``capsule.json``, its first file, lists the others with their digests. A digest proves that nothing has changed, not who wrote it,
so sizes, names and types are checked too while reading, and nothing is decoded that could run.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import msgspec

from runner.errors import RecordError
from runner.system import files
from runner.wording.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMAT = 1
"""Version of the format. Readers refuse a newer one."""

MAX_BYTES = 2**31 - 1
"""The largest size of a capsule, and of its unpacked files, in bytes. Larger zips need an extension of the zip format."""

MAX_RATIO = 200
"""The largest ratio of unpacked to packed size, beyond `SMALL_BYTES`. Records of runs have 5 to 30."""

SMALL_BYTES = 2**26
"""The unpacked size, in bytes, up to which the ratio is not checked."""

MAX_FILES = 20_000
MAX_DEPTH = 64
"""Levels of nesting in one JSON value."""

CONTENTS = "capsule.json"

_MAX_DIRECTORY = 2**22
_MARK = re.compile(rb"ostinato capsule (\d{1,9}) sha256:([0-9a-f]{64})\Z")
_ENDINGS = "txt|py|jsonl|png|jpg|gif|webp|wav|mp3|pdf"
_PROGRAM = r"files/program/(?:[A-Za-z_][A-Za-z0-9_]{0,63}/){0,8}[A-Za-z0-9_-]{1,99}(?:\.[A-Za-z0-9]{1,10}){0,3}"
_NAME = re.compile(rf"(?:[a-z]+\.(?:json|jsonl|yaml)|files/[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}\.(?:{_ENDINGS})|{_PROGRAM})")
_END = b"PK\x05\x06"
_END_BYTES = 22
_BLOCK = 2**20
_TIME = (1980, 1, 1, 0, 0, 0)


class Member(msgspec.Struct, frozen=True):
    """One file of a capsule: its digest in hex, and its size."""

    sha256: str
    bytes: int


class Contents(msgspec.Struct, frozen=True):
    """The content of ``capsule.json``: the files of the capsule, and what its maker says of it (`facts`)."""

    format: int
    files: dict[str, Member]
    facts: dict[str, Any]


class Capsule(msgspec.Struct, frozen=True):
    """An unpacked capsule. Every file in `folder` is as ``capsule.json`` says, and all its JSON can be decoded."""

    folder: Path
    contents: Contents
    sha256: str


def is_capsule(file: Path) -> bool:
    """Return whether `file` ends as a capsule does. It may still be damaged."""
    with contextlib.suppress(OSError), file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 128))
        return _MARK.search(stream.read()) is not None
    return False


def write(folder: Path, names: Sequence[str], file: Path, facts: dict[str, Any]) -> str:
    """Pack the files `names` of `folder`, in that order. The same files and facts make the same bytes.

    Returns:
        The SHA-256 of the capsule, in hex.

    Raises:
        RecordError: it cannot be written, or it would be too large.
    """
    try:
        with files.drafted(file) as draft:
            _zip(folder, names, draft, facts)
            digest = _sealed(draft)
            _check(draft)
    except _Refused as refused:
        raise RecordError(f"cannot write {file}: readers would refuse it: {refused}") from None
    except OSError as error:
        raise RecordError(f"cannot write {file}: {error.strerror}") from None
    except (zipfile.LargeZipFile, RuntimeError):
        raise RecordError(
            f"cannot write {file}: the run is too large for a capsule, which holds up to {MAX_BYTES:,} bytes"
        ) from None
    return digest


def _zip(folder: Path, names: Sequence[str], file: Path, facts: dict[str, Any]) -> None:
    """Write the zip, with zeros in place of its digest."""
    contents = Contents(FORMAT, {name: _measured(folder / name) for name in names}, facts)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=False, compresslevel=9) as archive:
        archive.comment = b"ostinato capsule %d sha256:%s" % (FORMAT, b"0" * 64)
        archive.writestr(_entry(CONTENTS), msgspec.json.format(msgspec.json.encode(contents), indent=1) + b"\n")
        for name in names:
            with (folder / name).open("rb") as source, archive.open(_entry(name), "w") as target:
                while block := source.read(_BLOCK):
                    target.write(block)


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Capsule]:
    """Check a whole capsule, and unpack it into a private folder that is deleted afterwards.

    Raises:
        RecordError: it is not a valid capsule; the message says why. Nothing of it was used.
    """
    try:
        stream = file.open("rb")
    except OSError as error:
        raise RecordError(f"{file}: {error.strerror}") from None
    with stream, tempfile.TemporaryDirectory(prefix="ostinato-") as place:
        folder = Path(place)
        try:
            digest, size = _check_whole(stream)
            contents = _unpack(stream, size, folder)
        except _Refused as refused:
            raise RecordError(f"{file} is refused: {printable(str(refused))}; nothing of it was used") from None
        except OSError as error:
            raise RecordError(f"{file} cannot be unpacked into {folder}: {error.strerror}") from None
        yield Capsule(folder, contents, digest)


class _Refused(Exception):  # noqa: N818 - a reason, which `opened` puts into its message
    pass


def _refuse(why: str) -> NoReturn:
    raise _Refused(why)


def _check(file: Path) -> None:
    """Read a new capsule as a reader will."""
    with file.open("rb") as stream, tempfile.TemporaryDirectory(prefix="ostinato-") as place:
        _, size = _check_whole(stream)
        _unpack(stream, size, Path(place))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, on every machine
    entry.external_attr = (stat.S_IFREG | 0o600) << 16
    return entry


def _measured(file: Path) -> Member:
    with file.open("rb") as stream:
        return Member(hashlib.file_digest(stream, "sha256").hexdigest(), file.stat().st_size)


def _sealed(file: Path) -> str:
    """Write the digest of all bytes before the last 64 into these. Returns the digest of the whole."""
    with file.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        digest = _digest(stream, size - 64)
        stream.seek(size - 64)
        stream.write(digest.hexdigest().encode())
        stream.flush()
        os.fsync(stream.fileno())
        digest.update(digest.hexdigest().encode())
        return str(digest.hexdigest())


def _digest(stream: IO[bytes], size: int) -> Any:
    """Return the SHA-256 of the first `size` bytes."""
    stream.seek(0)
    digest = hashlib.sha256()
    while size > 0 and (block := stream.read(min(size, _BLOCK))):
        digest.update(block)
        size -= len(block)
    return digest


def _check_whole(stream: IO[bytes]) -> tuple[str, int]:
    """Check that every byte is as it was written. Returns the digest and the size."""
    size = stream.seek(0, os.SEEK_END)
    if size > MAX_BYTES:
        _refuse(f"it has {size:,} bytes, more than a capsule may have")
    stream.seek(max(0, size - 128))
    mark = _MARK.search(stream.read())
    if mark is None:
        _refuse("it does not have the end of a capsule: it was cut off, or is another kind of file")
    if int(mark[1]) != FORMAT:
        _refuse(f"its format is {int(mark[1])}, and this version of ostinato reads {FORMAT}")
    digest = _digest(stream, size - 64)
    if digest.hexdigest().encode() != mark[2]:
        _refuse("its content does not match its digest: it was damaged or changed")
    digest.update(mark[2])
    _check_directory(stream, size - len(mark[0]) - _END_BYTES)
    return digest.hexdigest(), size


def _check_directory(stream: IO[bytes], at: int) -> None:
    """Check the zip's end record, at `at`, before a library reads as many entries as it claims."""
    stream.seek(max(0, at - 20))
    before, record = stream.read(min(20, max(0, at))), stream.read(_END_BYTES)
    if at < 0 or not record.startswith(_END) or record.count(_END) > 1:
        _refuse("it is not a zip")
    entries, directory = int.from_bytes(record[10:12], "little"), int.from_bytes(record[12:16], "little")
    if entries > MAX_FILES or directory > _MAX_DIRECTORY or before.startswith(b"PK\x06\x07"):
        _refuse(f"its directory is larger than that of {MAX_FILES} files")


def _unpack(stream: IO[bytes], size: int, folder: Path) -> Contents:
    try:
        with zipfile.ZipFile(stream) as archive:
            names = _names(archive)
            return _copied(archive, names, _Allowance(size), folder)
    except _Refused:
        raise
    except Exception as error:  # boundary: on malicious bytes zipfile raises anything
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # an offset before the first byte
            raise
        _refuse(f"it cannot be read as a zip ({type(error).__name__}: {error})")


def _names(archive: zipfile.ZipFile) -> set[str]:
    """Return the names in the zip's directory. Each must be one that a capsule may hold, of a regular file."""
    names: set[str] = set()
    for entry in archive.infolist():
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        if entry.orig_filename != name or not _NAME.fullmatch(name):
            _refuse(f"it holds {_quoted(entry.orig_filename)}, a name that a capsule may not contain")
        if name in names:
            _refuse(f"it holds {name} twice")
        names.add(name)
        if kind not in (0, stat.S_IFREG):
            _refuse(f"{name} in it is not a regular file")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            _refuse(f"{name} in it is encrypted, or packed in a way that capsules do not use")
    if CONTENTS not in names:
        _refuse(f"it holds no {CONTENTS}")
    return names


def _copied(archive: zipfile.ZipFile, names: set[str], allowance: _Allowance, folder: Path) -> Contents:
    """Unpack every file and compare it with the list of contents."""
    _copy(archive, CONTENTS, folder, allowance)
    _check_json(folder / CONTENTS, CONTENTS)
    try:
        contents = msgspec.json.decode((folder / CONTENTS).read_bytes(), type=Contents)
    except msgspec.MsgspecError as error:
        _refuse(f"{CONTENTS} in it is malformed: {error}")
    if contents.format != FORMAT:
        _refuse(f"{CONTENTS} says format {contents.format}")
    if missing := sorted(contents.files.keys() - names):
        _refuse(f"it lacks {_quoted(missing[0])}, which {CONTENTS} lists")
    if extra := sorted(names - contents.files.keys() - {CONTENTS}):
        _refuse(f"it holds {extra[0]}, which {CONTENTS} does not list")
    for name, told in contents.files.items():
        if _copy(archive, name, folder, allowance) != told:
            _refuse(f"{name} in it does not match {CONTENTS}: it was changed")
        if name.endswith((".json", ".jsonl")):
            _check_json(folder / name, name)
    return contents


class _Allowance:
    """The bytes that may still be unpacked from a capsule of `size` bytes."""

    def __init__(self, size: int) -> None:
        self.left = min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * size))

    def spend(self, count: int, name: str) -> None:
        self.left -= count
        if self.left < 0:
            _refuse(f"it unpacks to far more than a record does (while reading {name})")


def _copy(archive: zipfile.ZipFile, name: str, folder: Path, allowance: _Allowance) -> Member:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with archive.open(name) as source, target.open("xb") as file:
        while block := source.read(_BLOCK):
            allowance.spend(len(block), name)
            digest.update(block)
            size += len(block)
            file.write(block)
    return Member(digest.hexdigest(), size)


def _check_json(file: Path, name: str) -> None:
    """Refuse what is not JSON, or nested so deeply that other readers would fail."""
    with file.open("rb") as stream:
        for number, text in enumerate(stream if name.endswith(".jsonl") else [stream.read()], 1):
            try:
                value = msgspec.json.decode(text)
            except (ValueError, RecursionError):
                _refuse(f"{name} in it is not JSON, or too deeply nested (line {number})")
            if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_deep(value):
                _refuse(f"{name} in it is nested deeper than {MAX_DEPTH} levels (line {number})")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item for one in level if isinstance(one, dict | list) for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def _quoted(name: str) -> str:
    """Return a name from outside, shortened and safe to print."""
    return json.dumps(name[:80])
