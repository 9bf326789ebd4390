"""Files that are written whole or not at all, and locks between processes.

A reader sees the old content or the new one, even if a process is killed at any time. The new content is on disk before it
replaces the old one, unless the caller can do without that. A write that fails, for example because the disk is full, leaves
the old file in place and nothing beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_EVERYBODY, _OWNER = 0o666, 0o600
"""Modes of new files; the process's umask narrows the first."""


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = _EVERYBODY, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a draft for writing. It replaces `path` when the block ends, and is deleted when the block raises.

    Args:
        path: the file.
        mode: of the file.
        sync: whether the content is on disk first; if not, a power failure, but no killed process, may leave neither.

    Raises:
        OSError: the file cannot be written; `path` is as it was.
    """
    with drafted(path, mode=mode) as draft, draft.open("wb") as stream:
        yield stream
        stream.flush()
        if sync:
            os.fsync(stream.fileno())


@contextlib.contextmanager
def drafted(path: Path, *, mode: int = _EVERYBODY) -> Iterator[Path]:
    """Make an empty draft, to be written by its name. It replaces `path` when the block ends; if that raises, it is deleted.

    It is locked until it has replaced `path`, so no other process takes it for one that a killed process has left.

    Raises:
        OSError: the draft cannot be made, or cannot replace `path`; `path` is as it was.
    """
    drop_drafts(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                lock(handle)
            yield draft
            draft.replace(path)
        finally:
            os.close(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def drop_drafts(path: Path) -> None:
    """Delete drafts of a file that killed processes have left: those whose process is gone, and which nobody has locked.

    The lock tells of processes on other machines that share the folder.
    """
    with contextlib.suppress(OSError), os.scandir(path.parent) as found:
        names = [entry.name for entry in found if entry.name.startswith(f".{path.name}.") and entry.name.endswith(".tmp")]
        for name in names:
            pid = name.removeprefix(f".{path.name}.").removesuffix(".tmp")
            if pid.isdecimal() and not _is_running(int(pid)):
                _drop(path.with_name(name))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def _drop(draft: Path) -> None:
    handle = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if lock(handle):
            draft.unlink()
    finally:
        os.close(handle)


def write(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Write a file. Raises OSError."""
    with replacing(path, sync=sync) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, and that survives a power failure once this returns. Raises OSError."""
    with replacing(path, mode=_OWNER) as stream:
        stream.write(content)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power failure. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock on `file`, which is made if need be. The system releases it when the process ends, however that ends.

    Args:
        file: the lock file; its content does not matter.
        wait: wait for the lock; if False, and another process (or another block in this one) holds it, yield False.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT, _OWNER)
    try:
        if wait:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield wait or lock(handle)
    finally:
        os.close(handle)


def lock(handle: int) -> bool:
    """Take the lock on an open file without waiting, until the file is closed. Return whether it was free.

    A child process that inherits the file holds the lock as well. Raises OSError when the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
