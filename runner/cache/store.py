"""Store JSON bytes in diskcache, under an LRU in memory. The only module that imports diskcache; nothing is unpickled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import msgspec

from runner.answers import ending_of, parted
from runner.cache.ahead import ReadAhead
from runner.cache.marks import Marks
from runner.cache.table import FILE, RAW, Table
from runner.errors import CacheError
from runner.system.paths import private
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
    """A stored answer, with its cost at that time in dollars."""

    v: int
    created: float
    response: Response
    cost_usd: float | None = None


class Stored(Entry, frozen=True, omit_defaults=True):
    """The JSON on disk under one key: the entry, and the request, for people to recognise it."""

    request: Request | None = None


class _Encoded(msgspec.Struct, frozen=True, omit_defaults=True):
    """Do as `Stored`, with parts that are JSON already."""

    v: int
    created: float
    response: msgspec.Raw
    cost_usd: float | None = None
    request: msgspec.Raw = msgspec.Raw(b"null")


Put: TypeAlias = tuple[str, Response, Request | None, float | None]
"""A key, its answer, the request, and the cost in dollars."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode  # a hit needs only the answer: the request, the larger part, is skipped
_decode_stored = msgspec.json.Decoder(Stored).decode

IN_ROW = 2**15
"""Bytes from which diskcache keeps a value in a file, not in its row."""
TIMEOUT_S = 30.0
"""Seconds to wait for another process's transaction."""
GATHER_TURNS = 1
"""Turns of the event loop that a transaction waits for more answers. More turns save a little CPU and delay the rows of a busy
loop: with 10,000 rows at 200 ms, four turns cost 4 % of the time."""
READ_AHEAD = 64
"""The most answers that are read from disk beyond a requested one."""
CULL_EVERY = 50
"""Answers stored between two checks of the size limit."""


class Cache:
    """Answers by request key. Opened on first use; safe to share between threads and processes.

    A corrupt cache is a miss and one warning, never a crash. Callers check with `worth_keeping` what may be stored: no errors,
    refusals or truncated answers.

    Args:
        folder: holds the database; made readable by this user only.
        mode: ``off``; ``read``; ``write``; ``rw``; ``refresh`` (never reads, always writes); ``replay`` (a miss is an error).
        ttl: seconds that an entry is valid after it was stored; None is forever.
        size_limit: bytes on disk; the oldest entries are removed first.
        memory_entries: entries kept in memory.

    Attributes:
        only: the name of a model; entries whose answer names another one are misses. None: all are used.
        others: the models of such entries.
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
        self.only: str | None = None
        self.others: set[str] = set()
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._marks = Marks()
        self._ahead = ReadAhead(min(READ_AHEAD, memory_entries // 16))
        self._lock = threading.Lock()
        self._disk: Any = None
        self._table: Table | None = None
        self._to_cull = 0
        self._gathering: dict[asyncio.AbstractEventLoop, list[tuple[Put | None, asyncio.Future[None] | None]]] = {}
        self._soon: dict[str, Put] = {}
        self._problem: Exception | None = None
        self._opening = threading.Lock()
        self._broken = False
        self._warned = False

    @property
    def reads(self) -> bool:
        """True if this mode looks up answers."""
        return self.mode in _READS

    @property
    def writes(self) -> bool:
        """True if this mode stores answers."""
        return self.mode in _WRITES

    def changes(self) -> int | None:
        """Return a number that changes when others store answers in this folder, or it is opened again; None if it cannot be."""
        if (table := self._table) is not None and table.just_looked and table.process == os.getpid():
            return table.seen
        return self._guard(lambda _: None if self._table is None else self._table.changes(), None)

    def get(self, key: str, *, missing_since: int | None = None) -> Entry | None:
        """Return the entry of `key`, or None. Entries found on disk are kept in memory.

        Args:
            key: of the request.
            missing_since: what `changes` returned before a lookup of this key that found nothing: as long as nobody else has
                stored anything since, and its answer has not left the memory, the disk is not asked again.
        """
        if self.mode not in _READS:
            return None
        if self._soon and (soon := self._soon.get(key)) is not None:
            self.put_many([soon])  # not later: who finds the answer may rely on it
            self._soon.pop(key, None)
        data = self._memory.get(key)  # one step of C code: no lock is needed
        if data is not None and (entry := self._usable(data)) is not None:
            return entry
        if key not in self._marks and self._is_known(missing_since):
            return None
        data = self._fetch_one(key)
        if data is None:
            self._mark_all()
            return None
        if (entry := self._usable(data)) is None:
            return None
        self._remember([(key, data)])
        return entry

    def get_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Return the entries of those `keys` that have one, in one query; none if the mode does not read."""
        if not self.reads:
            return {}
        with self._lock:
            memory = self._memory
            held = {key: memory.get(key) for key in keys}
        usable = self._usable
        found = {key: entry for key, data in held.items() if data is not None and (entry := usable(data)) is not None}
        if len(found) < len(held):
            for key, data in self._fetch([key for key in held if key not in found]).items():
                if (entry := usable(data)) is not None:
                    found[key] = entry
        return found

    def refuse_miss(self, key: str) -> None:
        """Raise CacheError in replay mode, where a miss must not become a request; do nothing in other modes."""
        if self.mode == "replay":
            raise CacheError(f"replay: the cache in {self.folder} has no answer for request {key[:12]}; nothing was sent")

    def __deepcopy__(self, memo: dict[int, Any]) -> Cache:
        """Return the same cache: copies of its users share it."""
        return self

    def put(self, key: str, response: Response, *, request: Request | None = None, cost_usd: float | None = None) -> None:
        """Store an answer if the mode writes. A full disk or a locked database is a warning, and the answer is still returned."""
        self.put_many([(key, response, request, cost_usd)])

    def put_many(self, items: Iterable[Put]) -> None:
        """Store several answers in one transaction."""
        if not self.writes:
            return
        now = time.time()
        self._keep([(key, _encode(Stored(ENTRY_VERSION, now, answer, cost, asked))) for key, answer, asked, cost in items], now)

    def put_encoded(self, items: Iterable[tuple[str, bytes, bytes | None, float | None]]) -> None:
        """Do as `put_many`, with answers and requests that are JSON already."""
        if not self.writes:
            return
        now, raw = time.time(), msgspec.Raw
        entries = ((key, answer, raw(asked or b"null"), cost) for key, answer, asked, cost in items)
        self._keep(
            [(key, _encode(_Encoded(ENTRY_VERSION, now, raw(answer), cost, asked))) for key, answer, asked, cost in entries], now
        )

    def _keep(self, ready: list[tuple[str, bytes]], now: float) -> None:
        """Store encoded entries in one transaction."""
        self._remember(ready)
        small = [item for item in ready if len(item[1]) < IN_ROW]
        expire = None if self.ttl is None else now + self.ttl

        def write(disk: Any) -> None:
            if small and self._table is not None:
                self._table.store(small, now, expire)
            for key, data in ready if len(small) < len(ready) else ():
                if len(data) >= IN_ROW:
                    disk.set(key, data, expire=self.ttl)
            self._to_cull += len(ready)
            if self._to_cull >= CULL_EVERY:
                self._to_cull = 0
                if disk.volume() > self.size_limit:
                    disk.cull()

        self._guard(write, None)

    async def aput(self, item: Put) -> None:
        """Do as `put`. Answers within a few turns of the event loop share one transaction.

        Returns when the operating system has the answer, so that what follows, such as a line in a record, can rely on it.
        """
        stored = asyncio.get_running_loop().create_future()
        self.put_soon(item, stored)
        await stored

    def put_soon(self, item: Put, stored: asyncio.Future[None] | None = None) -> None:
        """Store an answer in a few turns of the event loop, when `settle` is called, or when `get` looks it up.

        Args:
            item: what is stored.
            stored: is done when the operating system has it.
        """
        loop = asyncio.get_running_loop()
        gathered = self._gathering.get(loop)
        if gathered is None:
            gathered = self._gathering[loop] = []
            loop.call_soon(self._store_gathered, loop, GATHER_TURNS)
        gathered.append((item, stored))
        self._soon[item[0]] = item

    async def stored(self) -> None:
        """Return when the operating system has what this event loop has given to `put_soon`. Raises CacheError."""
        if (gathered := self._gathering.get(loop := asyncio.get_running_loop())) is not None:
            stored = loop.create_future()
            gathered.append((None, stored))
            await stored

    def settle(self) -> None:
        """Store now what this event loop has given to `put_soon`.

        Raises:
            CacheError, or another Exception: that failed, now or since the last call, and no caller of `aput` was told.
        """
        self._store_gathered(asyncio.get_running_loop(), 0)
        if (problem := self._problem) is not None:
            self._problem = None
            raise problem

    def _store_gathered(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        if turns:
            loop.call_soon(self._store_gathered, loop, turns - 1)
            return
        if (gathered := self._gathering.pop(loop, None)) is None:
            return
        problem: Exception | None = None
        try:
            self.put_many([item for item, _ in gathered if item is not None])
        except Exception as error:  # noqa: BLE001 - boundary: those that wait, and `settle`, raise it
            problem = error
        for item, stored in gathered:
            if item is not None:
                self._soon.pop(item[0], None)
            if stored is None:
                self._problem = problem or self._problem
            elif stored.done():  # its caller was cancelled
                continue
            elif problem is None:
                stored.set_result(None)
            else:
                stored.set_exception(problem)

    def entries(self) -> Iterator[tuple[str, Stored]]:
        """Yield every readable entry with its key, oldest first."""
        disk = self._open()
        if disk is None:
            return
        for key in list(disk):
            if isinstance(key, str) and (data := self._fetch([key]).get(key)) is not None and self._usable(data) is not None:
                with contextlib.suppress(msgspec.MsgspecError):
                    yield key, _decode_stored(data)

    def stats(self) -> dict[str, Any]:
        """Return the folder, the entries and bytes on disk, and the limit."""
        count = self._guard(len, 0)
        volume = self._guard(lambda disk: disk.volume(), 0)
        return {"folder": str(self.folder), "entries": count, "bytes": volume, "size_limit": self.size_limit}

    def check(self) -> list[str]:
        """Return the problems of the database on disk, as text; an empty list means healthy."""
        file = (self.folder / "cache.db").absolute()
        if not file.exists():
            return []
        try:
            with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
                rows = database.execute("PRAGMA quick_check").fetchall()
        except sqlite3.Error as error:
            return [str(error)]
        return [str(row[0]) for row in rows if row[0] != "ok"]

    def prune(self, *, older_than: float | None = None, progress: Callable[[int, int], None] = lambda _done, _total: None) -> int:
        """Remove expired entries, or those older than `older_than` seconds. Return how many were removed.

        `progress` is called now and then with the number of old entries that are removed, and of all of them.
        """
        if older_than is None:
            return int(self._guard(lambda disk: disk.expire(), 0))
        limit = time.time() - older_than
        with self._lock:
            held = self._memory.items()
            self._forget([key for key, data in held if (entry := self._usable(data)) is None or entry.created < limit])
        return self._guard(lambda _: self._table.remove(limit, progress) if self._table is not None else 0, 0)

    def clear(self) -> int:
        """Remove everything, even an unreadable database. Return how many entries were removed.

        Raises:
            CacheError: another process is writing and does not end.
        """
        with self._lock:
            self._forget(list(self._memory))
        removed, failed = 0, ""
        if (self.folder / "cache.db").exists():
            try:
                with contextlib.closing(Table(self.folder, TIMEOUT_S)) as table:
                    removed = table.clear()
            except sqlite3.DatabaseError as error:
                failed = str(error)
            if not self.check():
                if failed:
                    raise CacheError(f"the cache in {self.folder} could not be cleared: {failed}; try again")
                return removed
        self.close()
        for file in [*self.folder.glob("cache.db*"), *self.folder.glob("??/??/*.val")]:  # the files of diskcache
            file.unlink(missing_ok=True)
        self._broken = self._warned = False
        return removed

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        if self._disk is not None:
            self._disk.close()
            self._disk = None
        if self._table is not None:
            self._table.close()
            self._table = None

    def _fetch(self, keys: list[str]) -> dict[str, bytes]:
        """Return the values of `keys` on disk."""

        def read(disk: Any) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            for key, mode, value in self._table.find(keys, time.time()) if self._table is not None else ():
                data = value if mode == RAW else disk.get(key) if mode == FILE else None
                if isinstance(data, bytes):
                    found[key] = data
            return found

        return self._guard(read, {})

    def _fetch_one(self, key: str) -> bytes | None:
        """Return the value of `key` on disk, and read into memory what is likely to be requested next."""

        def read(disk: Any) -> bytes | None:
            now = time.time()
            if self._table is None or (found := self._table.find_one(key, now)) is None:
                return None
            place, mode, value = found
            if count := self._ahead.beyond(place):
                self._remember(self._table.beyond(place, count, now), again=False)
            return value if mode == RAW else disk.get(key) if mode == FILE else None

        data = self._guard(read, None)
        return data if isinstance(data, bytes) else None

    def _is_known(self, missing_since: int | None) -> bool:
        """Return whether a key without a mark cannot be on disk: nobody has stored any since then, or since all were marked."""
        marked_since = self._marks.complete_since
        if missing_since is None and marked_since is None:
            return False
        if (changes := self.changes()) is None:
            return False
        if marked_since is not None and changes != marked_since:
            self._marks.begin_again()
        return changes in (missing_since, marked_since)

    def _mark_all(self) -> None:
        """Mark the keys on disk after a lookup in vain, once that takes no longer than such lookups have taken."""
        if (most := self._marks.count_vain()) is None:
            return

        def mark(_: Any) -> None:
            if self._table is not None and self._table.size() <= most:
                since = self._table.changes(now=True)  # what others store from now on changes it
                for keys in self._table.each_keys():
                    self._marks.add(keys)
                self._marks.complete_since = since

        self._guard(mark, None)

    def _usable(self, data: bytes) -> Entry | None:
        """Return the entry in `data`, if it has this version, has not expired, and is an answer."""
        try:
            entry = _decode(data)
        except msgspec.MsgspecError:
            return None
        fresh = self.ttl is None or time.time() - entry.created <= self.ttl
        if not fresh or entry.v != ENTRY_VERSION or (self.mode != "replay" and _has_failed(entry.response)):
            return None
        if self.only is not None and (model := entry.response.model) is not None and model != self.only:
            self.others.add(model)
            return None
        return entry

    def _remember(self, items: Iterable[tuple[str, bytes]], *, again: bool = True) -> None:
        """Keep items in memory. Without `again`, items that are there already stay: they may be newer than those on disk."""
        with self._lock:
            for key, data in items:
                if again or key not in self._memory:
                    self._memory[key] = data
                    self._memory.move_to_end(key)
            while len(self._memory) > self.memory_entries:
                self._forget([next(iter(self._memory))])

    def _forget(self, keys: list[str]) -> None:
        """Drop items from memory, under the lock. They may be on disk, so they are marked first: a lookup takes no lock."""
        self._marks.add(keys)
        for key in keys:
            del self._memory[key]

    def _open(self) -> Any:
        if self._table is not None and self._table.process == os.getpid():
            return self._disk
        with self._opening:
            if self._table is not None and self._table.process != os.getpid():
                self._table = self._disk = None  # after a fork: SQLite connections must not be used in the child
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
                timeout=TIMEOUT_S,
            )
            self._table = Table(self.folder, TIMEOUT_S)
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
        """Use the database; return `otherwise`, with a warning, if it fails."""
        disk = self._open()
        if disk is None:
            return otherwise
        try:
            return use(disk)
        except (OSError, sqlite3.Error, _timeout(), UnicodeDecodeError) as error:
            self._warn(error)
            return otherwise

    def _warn(self, error: Exception) -> None:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            self._broken = True
        if not self._warned:
            self._warned = True
            advice = "requests are sent again; run `ostinato cache clear` to start with an empty cache"
            warnings.warn(f"the cache in {self.folder} cannot be used ({error}); {advice}", stacklevel=3)


def worth_keeping(response: Response, *, max_tokens: int | None = None) -> bool:
    """Return whether an answer may be cached: complete, not refused, and not empty (neither text nor a tool call).

    A truncated answer, also one that is all thinking, is kept only if it has all of its `max_tokens`. These are part of its key,
    so another request would pay for the same cut again. An answer that was cut for another reason (a full context, a server's own
    limit) may be longer the next time.
    """
    for choice in map(parted, response.choices):
        ending = ending_of(choice.finish_reason)
        if ending in ("refused", "failed", "malformed") or (ending == "cut" and not _is_whole(response, max_tokens)):
            return False
        if not (choice.text or choice.tool_calls or (ending == "cut" and choice.reasoning)):
            return False
    return True


def _is_whole(response: Response, max_tokens: int | None) -> bool:
    """Return whether a truncated answer has all of its `max_tokens`."""
    return max_tokens is not None and len(response.choices) == 1 and _completion_tokens(response) >= max_tokens


_FAILED = frozenset({"failed", "malformed"})


def _has_failed(response: Response) -> bool:
    """Return whether one of the answers is a failure of the server. Versions until 2026-11 took some of these for answers."""
    for choice in response.choices:  # noqa: SIM110 - each hit asks this, and `any` takes three times as long
        if choice.finish_reason != "stop" and ending_of(choice.finish_reason) in _FAILED:
            return True
    return False


def _completion_tokens(response: Response) -> int:
    return response.usage.completion_tokens if response.usage else 0


def _timeout() -> type[Exception]:
    import diskcache

    timeout: type[Exception] = diskcache.Timeout
    return timeout


def _json_disk() -> Any:
    """Return diskcache's Disk, restricted to raw bytes: a row marked as a pickle is a miss and is not opened."""
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
