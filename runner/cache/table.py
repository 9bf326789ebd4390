"""Access diskcache's table on the hot path: many lookups in one statement, many stores in one transaction.

diskcache owns the database: its schema (5.6.3), settings, expiry and eviction. One `get` or `set` of its own is several
statements and a transaction; here a row of a batch costs a few microseconds. Only bytes are read; nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BATCH = 256
TOGETHER = 250_000
"""Entries that are removed in one transaction: a few seconds, in which others wait to store theirs."""
AT_ONCE = 10_000
"""Entries that are removed between two reports of progress."""
CHECKPOINT_EVERY = 2000
"""Rows stored between two checkpoints of the write-ahead log."""
LOG_BYTES = 2**26
"""Size of the log from which the writer waits for a checkpoint. SQLite begins the log again only when a checkpoint has caught up
with the writer, which one beside it never does while rows are stored without a pause: the log grew by some 10 kB per row."""
LOOK_S = 0.05
"""Seconds between two looks for what others have stored."""
RAW, FILE = 1, 2
"""diskcache's modes: the value is in the row, or in its own file."""

_FIND = "SELECT key, mode, value FROM Cache WHERE key IN ({}) AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"
_FIND_ONE = "SELECT rowid, mode, value FROM Cache WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"
_BEYOND = """
SELECT key, value FROM Cache WHERE rowid > ? AND rowid <= ? AND raw = 1 AND mode = 1 AND (expire_time IS NULL OR expire_time > ?)
"""
_SIZE = "SELECT MAX(rowid) FROM Cache"
_KEYS = "SELECT key FROM Cache WHERE raw = 1"
_VERSION = "PRAGMA data_version"
"""Another number once another connection has committed (sqlite.org/pragma.html); commits of this one leave it as it is."""
_STORE = """
INSERT INTO Cache(key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value)
VALUES (?1, 1, ?2, ?3, ?2, 0, NULL, 0, 1, NULL, ?4)
ON CONFLICT(key, raw) DO UPDATE SET store_time = ?2, expire_time = ?3, access_time = ?2, access_count = 0, size = 0, mode = 1,
filename = NULL, value = ?4
"""
_OLD = "SELECT rowid, filename FROM Cache WHERE raw = 1 AND mode IN (1, 2) AND store_time < ? ORDER BY rowid"
_REMOVE = "DELETE FROM Cache WHERE rowid = ? AND store_time < ?"
_TRIGGERS = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'Cache'"
_openings = itertools.count(1)
"""Numbers of the tables that this process has opened; after a fork, the child counts on from those of its parent."""
_VERSIONS = 2**32
"""The numbers that `_VERSION` has: 32 bits, and each connection begins anew, so that two may name different states alike."""
_VALUE_FILE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]+\.val")
"""The file of a large value, as diskcache names it."""


class Table:
    """The rows of one database, in this process: one connection to read and one to write, shared by its threads.

    Methods raise sqlite3.Error, also after waiting `timeout_s` seconds for another process's transaction.

    Attributes:
        process: the process that has opened it.
        seen: what `changes` has returned last.
    """

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self.process = os.getpid()
        self._reader, self._reading = _connect(folder, timeout_s), threading.Lock()
        self._writer, self._writing = _connect(folder, timeout_s), threading.Lock()
        self._writer.execute("PRAGMA wal_autocheckpoint = 0")  # a checkpoint waits for the disk: it runs in a thread
        self._folder, self._connect = folder, functools.partial(_connect, folder, timeout_s)
        self._stored = 0
        self._opening = next(_openings)
        self.seen, self._looked = self._version(), time.monotonic()
        self._checkpointing: threading.Thread | None = None

    def find(self, keys: Sequence[str], now: float) -> list[tuple[str, int, bytes]]:
        """Return the rows ``(key, mode, value)`` of `keys` that have not expired by `now` (seconds since 1970)."""
        found: list[tuple[str, int, bytes]] = []
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            with self._reading:
                found += self._reader.execute(_find(len(part)), (*part, now)).fetchall()
        return found

    def find_one(self, key: str, now: float) -> tuple[int, int, bytes] | None:
        """Return the row ``(place, mode, value)`` of `key`, as `find` does; places grow in the order of storing."""
        with self._reading:
            found: tuple[int, int, bytes] | None = self._reader.execute(_FIND_ONE, (key, now)).fetchone()
        return found

    def beyond(self, place: int, count: int, now: float) -> list[tuple[str, bytes]]:
        """Return the rows ``(key, value)`` in the next `count` places, if their value is in the row."""
        with self._reading:
            return self._reader.execute(_BEYOND, (place, place + count, now)).fetchall()

    def store(self, rows: Sequence[tuple[str, bytes]], now: float, expire: float | None) -> None:
        """Store ``(key, value)`` rows in one transaction; `expire` is when they expire, in seconds since 1970."""
        with self._transaction() as writer:
            writer.executemany(_STORE, [(key, now, expire, value) for key, value in rows])
            self._stored += len(rows)
        if self._stored >= CHECKPOINT_EVERY:
            self._begin_checkpoint()

    def size(self) -> int:
        """Return the most rows that there can be."""
        with self._reading:
            return self._reader.execute(_SIZE).fetchone()[0] or 0

    def each_keys(self) -> Iterator[list[str]]:
        """Yield the keys of all rows, some thousands at a time."""
        with self._reading:
            found = self._reader.execute(_KEYS)
            while keys := [key for (key,) in found.fetchmany(CHECKPOINT_EVERY)]:
                yield keys

    def remove(self, before: float, progress: Callable[[int, int], None]) -> int:
        """Remove the entries that were stored before a time, in seconds since 1970. Return how many these were.

        Args:
            before: the time.
            progress: called now and then with the number of entries that are removed, and of those to be removed.
        """
        with self._reading:
            old = self._reader.execute(_OLD, (before,)).fetchall()
        removed = 0
        for begun in range(0, len(old), TOGETHER):
            with self._transaction() as writer:
                for start in range(begun, min(begun + TOGETHER, len(old)), AT_ONCE):
                    rows = [(place, before) for place, _ in old[start : start + AT_ONCE]]
                    removed += writer.executemany(_REMOVE, rows).rowcount
                    progress(start + len(rows), len(old))
        for _, name in old:
            if name is not None and _VALUE_FILE.fullmatch(name):
                (self._folder / name).unlink(missing_ok=True)
        return removed

    def clear(self) -> int:
        """Remove everything. Return how many entries there were.

        SQLite empties a table without looking at its rows if it has no triggers; diskcache's count rows and sizes. So these are
        put aside for the time of the transaction.
        """
        with self._transaction() as writer:
            triggers = writer.execute(_TRIGGERS).fetchall()
            for name, _ in triggers:
                writer.execute(f'DROP TRIGGER "{name}"')
            removed = writer.execute("DELETE FROM Cache").rowcount
            for _, statement in triggers:
                writer.execute(statement)
            writer.execute("UPDATE Settings SET value = 0 WHERE key IN ('count', 'size')")
        for file in self._folder.glob("??/??/*.val"):
            file.unlink(missing_ok=True)
        return removed

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction, or not at all."""
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def changes(self, *, now: bool = False) -> int:
        """Return a number that changes when others have stored rows: other connections to this database, of any process.

        A table that is opened again has other numbers: nobody knows what was stored in between. The number is looked up again if
        that was `LOOK_S` seconds ago, or `now`.
        """
        if now or not self.just_looked:
            self.seen, self._looked = self._version(), time.monotonic()
        return self.seen

    @property
    def just_looked(self) -> bool:
        """Return whether `seen` needs no other look."""
        return time.monotonic() - self._looked <= LOOK_S

    def _version(self) -> int:
        with self._writing:  # the connection whose own rows do not count
            found: int = self._writer.execute(_VERSION).fetchone()[0]
        return self._opening * _VERSIONS + found

    def _begin_checkpoint(self) -> None:
        """Start a checkpoint, unless one runs. Outside a transaction: a thread that cannot be started must not undo the rows."""
        with self._writing:
            if self._stored >= CHECKPOINT_EVERY and (self._checkpointing is None or not self._checkpointing.is_alive()):
                self._stored = 0
                thread = threading.Thread(target=self._checkpoint, name="cache checkpoint", daemon=True)
                thread.start()
                self._checkpointing = thread

    def _checkpoint(self) -> None:
        """Move the write-ahead log into the database, beside the writer unless it is large. What cannot be moved stays in it."""
        with contextlib.suppress(sqlite3.Error, OSError), contextlib.closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if (self._folder / "cache.db-wal").stat().st_size > LOG_BYTES:
                with self._writing:  # little is left to be moved; the next transaction begins the log again
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Close both connections. SQLite itself checkpoints when the last connection of all processes closes."""
        if self._checkpointing is not None:
            self._checkpointing.join()  # it may wait for the writer
        with self._reading, self._writing:
            self._reader.close()
            self._writer.close()


@functools.lru_cache(maxsize=BATCH)
def _find(keys: int) -> str:
    return _FIND.format(",".join("?" * keys))


def _connect(folder: Path, timeout_s: float) -> sqlite3.Connection:
    # isolation_level None: transactions begin and end explicitly; the locks serialise threads
    connection = sqlite3.connect(folder / "cache.db", timeout=timeout_s, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")  # as diskcache: a power cut may lose the last answers, never the database
    connection.execute("PRAGMA mmap_size = 67108864")
    return connection
