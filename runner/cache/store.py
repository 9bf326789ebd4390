"""The store: JSON bytes in diskcache under a memory LRU. The only importer of diskcache; nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from runner.errors import CacheError
from runner.paths import private
from runner.types import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

Mode = Literal["off", "read", "write", "rw", "refresh", "replay"]
ENTRY_VERSION = 1

_READS = frozenset({"read", "rw", "replay"})
_WRITES = frozenset({"write", "rw", "refresh"})
T = TypeVar("T")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one key holds on disk, as JSON: the answer, and enough of the question for a person to recognise it."""

    v: int
    created: float
    response: Response
    request: Request | None = None
    cost_usd: float | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


class Cache:
    """Answers by request key. Opened on first use; safe to share between threads and processes.

    A corrupt cache is a miss and one warning, never a crash. Errors, refusals and truncated answers are not for the cache:
    the caller asks `worth_keeping`.

    Args:
        folder: where the database lives; made readable by this user only.
        mode: ``off``; ``read``; ``write``; ``rw``; ``refresh`` (never reads, always writes); ``replay`` (a miss is an error).
        ttl: seconds an entry is good for, counted from when it was stored; None is for ever.
        size_limit: bytes on disk; the oldest entries go first.
        memory_entries: entries kept in memory.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mode: Mode = "rw",
        ttl: float | None = None,
        size_limit: int = 10 * 2**30,
        memory_entries: int = 10_000,
    ) -> None:
        self.folder = folder
        self.mode: Mode = mode
        self.ttl = ttl
        self.size_limit = size_limit
        self.memory_entries = memory_entries
        self.hits = 0
        self.misses = 0
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._disk: Any = None
        self._opening = threading.Lock()
        self._broken = False
        self._warned = False

    @property
    def reads(self) -> bool:
        """Whether this mode looks answers up."""
        return self.mode in _READS

    @property
    def writes(self) -> bool:
        """Whether this mode stores answers."""
        return self.mode in _WRITES

    def get(self, key: str) -> Entry | None:
        """The entry of `key`, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """The entries there are of `keys`; none where the mode does not read."""
        found: dict[str, Entry] = {}
        if not self.reads:
            return found
        for key in keys:
            entry = self._lookup(key)
            if entry is not None:
                found[key] = entry
            with self._lock:
                self.hits += entry is not None
                self.misses += entry is None
        return found

    def refuse_miss(self, key: str) -> None:
        """Raise CacheError in replay mode, where a miss may not become a request; do nothing in the other modes."""
        if self.mode == "replay":
            raise CacheError(f"replay: the cache in {self.folder} has no answer for request {key[:12]}; nothing was sent")

    def __deepcopy__(self, memo: dict[int, Any]) -> Cache:
        """A cache is shared by copies of what uses it."""
        return self

    def put(self, key: str, response: Response, *, request: Request | None = None, cost_usd: float | None = None) -> None:
        """Store an answer, where the mode allows it. A full disk or a locked database is a warning: the answer is not lost."""
        self.put_many([(key, response, request, cost_usd)])

    def put_many(self, items: Iterable[tuple[str, Response, Request | None, float | None]]) -> None:
        """Store several answers in one transaction."""
        if not self.writes:
            return
        now = time.time()
        ready = [(key, _encode(Entry(ENTRY_VERSION, now, answer, asked, cost))) for key, answer, asked, cost in items]
        for key, data in ready:
            self._remember(key, data)

        def write(disk: Any) -> None:
            with disk.transact():
                for key, data in ready:
                    disk.set(key, data, expire=self.ttl)

        self._guard(write, None)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Every readable entry with its key, oldest first."""
        disk = self._open()
        if disk is None:
            return
        for key in list(disk):
            if isinstance(key, str) and (entry := self._lookup(key)) is not None:
                yield key, entry

    def stats(self) -> dict[str, Any]:
        """Entries and bytes on disk, the limit, and the hits and misses of this process."""
        count = self._guard(len, 0)
        volume = self._guard(lambda disk: disk.volume(), 0)
        return {
            "folder": str(self.folder),
            "entries": count,
            "bytes": volume,
            "size_limit": self.size_limit,
            "hits": self.hits,
            "misses": self.misses,
            "healthy": not self._broken,
        }

    def check(self) -> list[str]:
        """Problems of the database on disk, as text; none means healthy."""
        if not (self.folder / "cache.db").exists():
            return []
        try:
            with contextlib.closing(sqlite3.connect(f"{(self.folder / 'cache.db').as_uri()}?mode=ro", uri=True)) as database:
                rows = database.execute("PRAGMA quick_check").fetchall()
        except sqlite3.Error as error:
            return [str(error)]
        return [str(row[0]) for row in rows if row[0] != "ok"]

    def prune(self, *, older_than: float | None = None) -> int:
        """Remove entries that have expired, or that are older than so many seconds. Returns how many went."""
        if older_than is None:
            return int(self._guard(lambda disk: disk.expire(), 0))
        limit = time.time() - older_than
        stale = [key for key, entry in self.entries() if entry.created < limit]
        for key in stale:
            self._forget(key)
        return len(stale)

    def clear(self) -> int:
        """Remove everything, a database that cannot be read included. Returns how many entries went."""
        with self._lock:
            self._memory.clear()
        if not self.check():
            return int(self._guard(lambda disk: disk.clear(), 0))
        self.close()
        for file in [*self.folder.glob("cache.db*"), *self.folder.glob("??/??/*.val")]:  # what diskcache makes
            file.unlink(missing_ok=True)
        self._broken = self._warned = False
        return 0

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        if self._disk is not None:
            self._disk.close()
            self._disk = None

    def _lookup(self, key: str) -> Entry | None:
        with self._lock:
            data = self._memory.get(key)
        if (entry := self._usable(data)) is not None:
            return entry
        data = self._guard(lambda disk: disk.get(key), None)
        if data is not None and (entry := self._usable(data)) is not None:
            self._remember(key, data)
        return entry

    def _usable(self, data: bytes | None) -> Entry | None:
        """The entry in `data`, if it is one of this version that has not expired."""
        if data is None:
            return None
        try:
            entry = _decode(data)
        except msgspec.MsgspecError:
            return None
        fresh = self.ttl is None or time.time() - entry.created <= self.ttl
        return entry if fresh and entry.v == ENTRY_VERSION else None

    def _remember(self, key: str, data: bytes) -> None:
        with self._lock:
            self._memory[key] = data
            self._memory.move_to_end(key)
            while len(self._memory) > self.memory_entries:
                self._memory.popitem(last=False)

    def _forget(self, key: str) -> None:
        with self._lock:
            self._memory.pop(key, None)
        self._guard(lambda disk: disk.delete(key), None)

    def _open(self) -> Any:
        with self._opening:
            if self._disk is None and not self._broken:
                self._disk = self._guard_open()
            return self._disk

    def _guard_open(self) -> Any:
        import diskcache

        try:
            private(self.folder)
            disk = diskcache.Cache(
                str(self.folder),
                disk=_json_disk(),
                size_limit=self.size_limit,
                eviction_policy="least-recently-stored",
                timeout=30,
            )
        except (OSError, sqlite3.Error, diskcache.Timeout, ValueError, TypeError) as error:
            if isinstance(error, OSError) or not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
                raise CacheError(
                    f"the cache folder {self.folder} cannot be used: {error}; set cache.dir or OSTINATO_HOME"
                ) from None
            self._warn(error)
            self._broken = True
            return None
        return disk

    def _guard(self, use: Callable[[Any], T], otherwise: T) -> T:
        """Use the database; what is wrong with it becomes a warning and `otherwise`."""
        import diskcache

        disk = self._open()
        if disk is None:
            return otherwise
        try:
            return use(disk)
        except (OSError, sqlite3.Error, diskcache.Timeout, UnicodeDecodeError) as error:
            self._warn(error)
            return otherwise

    def _warn(self, error: Exception) -> None:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            self._broken = True
        if not self._warned:
            self._warned = True
            advice = "answers are asked for again; `ostinato cache clear` starts afresh"
            warnings.warn(f"the cache in {self.folder} cannot be used ({error}); {advice}", stacklevel=3)


def worth_keeping(response: Response) -> bool:
    """Whether an answer may be cached: complete, not refused, not cut off."""
    return all(
        choice.finish_reason not in ("length", "content_filter", "refusal") and (choice.text is not None or choice.tool_calls)
        for choice in response.choices
    )


def _json_disk() -> Any:
    """The Disk of diskcache, restricted to raw bytes: a row that says it is a pickle reads as a miss and is not opened."""
    import diskcache
    from diskcache.core import MODE_BINARY, MODE_RAW

    class JSONDisk(diskcache.Disk):  # type: ignore[misc]
        def put(self, key: Any) -> tuple[str, bool]:
            return str(key), True

        def get(self, key: Any, raw: bool) -> Any:
            return key if raw else None

        def store(self, value: Any, read: bool, key: Any = None) -> Any:
            if not isinstance(value, bytes):
                raise TypeError(f"the cache holds bytes, not {type(value).__name__}")
            return super().store(value, read, key=key)

        def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
            if mode not in (MODE_RAW, MODE_BINARY):
                return None
            data = super().fetch(mode, filename, value, read)
            return bytes(data) if isinstance(data, bytes | memoryview) else None

    return JSONDisk
