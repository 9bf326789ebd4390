"""A record's folder: used by one process at a time, files written whole or not at all, with a manifest that names its kind."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

import msgspec

from runner.errors import RecordError
from runner.secrets import redact
from runner.system import files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMATS = {"run": 2, "sweep": 1, "pipeline": 1}
"""Version of each kind of record. Readers refuse a newer one, and read all older ones.

Run 2 (2026-11): a sample may have `reasoning`, `tool_calls`, `logprobs` and `answers`, and the status ``empty``.
"""
FORMAT = FORMATS["run"]


class Folder:
    """One folder of a record, of the kind that its manifest names.

    Attributes:
        path: where it is.
        synced: whether its files are on disk once they are written, so that a power failure leaves them whole.
    """

    kind: ClassVar[str]

    def __init__(self, path: Path, *, synced: bool = True) -> None:
        self.path = path
        self.synced = synced
        self._lock: int | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the record in `path`. Raises RecordError if it is not a record, or is of another kind or a newer format."""
        folder = cls(path.absolute())
        manifest = folder.manifest()
        found = manifest.get("format")
        kind = manifest.get("kind", "run")
        newest = FORMATS.get(kind, FORMATS[cls.kind])
        if not isinstance(found, int) or found > newest:
            raise RecordError(f"{path}: its format {found} is not one that this version of ostinato reads (up to {newest})")
        if kind != cls.kind:
            hint = f"; name one of {path / 'cells'}, or resume all of them: ostinato resume {path}" if kind == "sweep" else ""
            raise RecordError(f"{path} is a {kind}, and a {cls.kind} is needed here{hint}")
        return folder

    @classmethod
    def _make(
        cls, parent: Path, digest: str, contents: Mapping[str, str | bytes], *, prefix: str = "", synced: bool = True
    ) -> Self:
        """Make the folder ``<prefix><stamp>-<digest>`` in `parent`, with these files in it. Raises RecordError."""
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        made: Path | None = None
        try:
            parent.mkdir(parents=True, exist_ok=True)
            made = fresh(parent, f"{prefix}{stamp}-{digest}")
            folder = cls(made, synced=synced)
            for name, content in contents.items():
                files.write(made / name, content, sync=synced)
        except OSError as error:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)  # half a folder is not a record
            why = "the disk is full; make space, or" if is_full(error) else f"{error.strerror};"
            raise RecordError(f"cannot make a {cls.kind} folder in {parent}: {why} set runs_dir=...") from None
        return folder

    def lock(self) -> None:
        """Lock this folder until `close` or the end of the process: two processes would pay for every row twice.

        Raises:
            RecordError: another process (or another run in this one) holds the lock.
        """
        if self._lock is not None:
            return
        handle = os.open(self.path, os.O_RDONLY)
        with contextlib.suppress(OSError):
            if files.lock(handle):
                self._lock = handle
                return
        os.close(handle)
        raise RecordError(f"{self.path} is being played; wait until that has ended, or stop it with Ctrl-C")

    def manifest(self) -> dict[str, Any]:
        """Return what the run was made from. Raises RecordError if the manifest is missing or broken."""
        return self._read_json("manifest.json")

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest."""
        self.replace("manifest.json", pretty({"format": FORMATS[self.kind], **manifest}))

    def log(self, line: str) -> None:
        """Add a line, with the time, to ``run.log``; cleaned of secrets."""
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with (self.path / "run.log").open("a", encoding="utf-8") as stream:
                stream.write(f"{stamp} {redact(line)}\n")
        except OSError as error:
            raise self.unwritable(error, "run.log") from None

    def close(self) -> None:
        """Give up the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read_json(self, name: str) -> dict[str, Any]:
        file = self.path / name
        try:
            value = msgspec.json.decode(file.read_bytes())
        except OSError as error:
            raise RecordError(f"{self.path} is not a run folder: {name}: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise RecordError(f"{file} is broken: {error}") from None
        if not isinstance(value, dict):
            raise RecordError(f"{file} is broken: it holds no object")
        return value

    def replace(self, name: str, content: str | bytes) -> None:
        """Write a file whole or not at all. Raises RecordError."""
        try:
            files.write(self.path / name, content, sync=self.synced)
        except OSError as error:
            raise self.unwritable(error, name) from None

    def unwritable(self, error: OSError, name: str) -> RecordError:
        """Return the error for a file of the record that cannot be written."""
        kept, then = "what was finished before is kept", f"resume with: ostinato resume {self.path}"
        if is_full(error):
            return RecordError(f"the disk is full: {self.path / name} could not be written; {kept}; make space, then {then}")
        return RecordError(f"{self.path / name} cannot be written: {error.strerror}; {kept}; {then}")

    def point_latest(self) -> None:
        """Point ``latest`` beside this folder at it."""
        link = self.path.parent / "latest"
        temporary = self.path.parent / f".latest.{os.getpid()}"
        try:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(self.path.name)
            temporary.replace(link)
        except OSError:
            temporary.unlink(missing_ok=True)  # a file system without links: `find_run` looks at the names instead


def fresh(parent: Path, name: str) -> Path:
    """Make a new folder; two runs may start in the same second."""
    for attempt in range(1, 1000):
        path = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise RecordError(f"cannot make a run folder {parent / name}: too many of that name")


def is_full(error: OSError) -> bool:
    """Return whether the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def pretty(value: dict[str, Any]) -> bytes:
    """Return indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
