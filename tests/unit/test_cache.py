"""The cache: stored answers, expiry and limits, corrupt and hostile databases, several processes and threads."""

import asyncio
import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import msgspec
import pytest

from runner.cache import Cache, table, worth_keeping
from runner.errors import CacheError
from runner.types import Choice, Response
from tests.support.golden import ANSWER, ASKED, KEY, REQUEST


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cache(folder):
    opened = Cache(folder)
    yield opened
    opened.close()


def reopened(cache, **settings):
    """Return a cache of the same folder with nothing in memory, as in another process."""
    cache.close()
    return Cache(cache.folder, **settings)


# --- storing and finding


def test_a_stored_answer_is_returned_unchanged(cache):
    assert cache.get(KEY) is None
    cache.put(KEY, ANSWER, request=REQUEST, cost_usd=0.25)
    for reader in (cache, reopened(cache)):
        entry = reader.get(KEY)
        assert (entry.response, entry.cost_usd) == (ANSWER, 0.25)
        [(key, stored)] = reader.entries()
        assert (key, stored.response, stored.request, stored.cost_usd) == (KEY, ANSWER, REQUEST, 0.25)
        reader.close()


def test_the_database_is_opened_on_first_use(folder):
    Cache(folder).close()
    assert not folder.exists()


def test_many_answers_are_stored_at_once_and_counted(cache):
    cache.put_many((f"{n:064x}", ANSWER, None, None) for n in range(50))
    assert list(cache.get_many([f"{n:064x}" for n in range(45, 55)])) == [f"{n:064x}" for n in range(45, 50)]
    stats = cache.stats()
    assert stats["entries"] == 50
    assert stats["bytes"] > 0
    assert [key for key, _ in cache.entries()] == [f"{n:064x}" for n in range(50)]
    assert cache.check() == []
    assert cache.clear() == 50
    assert cache.get(f"{1:064x}") is None
    assert cache.stats()["entries"] == 0


@pytest.mark.parametrize(
    ("mode", "reads", "writes"),
    [
        ("off", False, False),
        ("read", True, False),
        ("write", False, True),
        ("rw", True, True),
        ("refresh", False, True),
        ("replay", True, False),
    ],
)
def test_modes_decide_what_is_read_and_written(cache, mode, reads, writes):
    cache.put(KEY, ANSWER)
    opened = reopened(cache, mode=mode)
    assert (opened.get(KEY) is not None) == reads == opened.reads
    opened.put("new", ANSWER)
    opened.put(KEY, msgspec.structs.replace(ANSWER, id="newer"))
    after = reopened(opened)
    assert (after.get("new") is not None) == writes == opened.writes
    assert after.get(KEY).response.id == ("newer" if writes else "x")
    after.close()


@pytest.mark.parametrize("mode", ["off", "read", "write", "rw", "refresh"])
def test_a_miss_is_an_error_only_in_replay(folder, mode):
    Cache(folder, mode=mode).refuse_miss(KEY)
    with pytest.raises(CacheError, match=f"has no answer for request {KEY[:12]}; nothing was sent"):
        Cache(folder, mode="replay").refuse_miss(KEY)


def test_an_entry_expires(cache, monkeypatch):
    now = time.time()
    brief = reopened(cache, ttl=60)
    brief.put(KEY, ANSWER)
    monkeypatch.setattr("time.time", lambda: now + 50)
    assert brief.get(KEY) is not None
    monkeypatch.setattr("time.time", lambda: now + 100)
    assert brief.get(KEY) is None  # although it is still in memory
    brief = reopened(brief, ttl=60)
    assert brief.get(KEY) is None
    assert brief.prune() == 1
    brief.close()


def test_a_shorter_ttl_of_the_reader_applies(cache, monkeypatch):
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now - 1000)
    cache.put(KEY, ANSWER)
    monkeypatch.undo()
    strict = reopened(cache, ttl=900)
    assert strict.get(KEY) is None
    strict.put(KEY, ANSWER)
    assert strict.get(KEY) is not None
    strict.close()


def test_an_entry_renewed_by_another_process_replaces_the_one_in_memory(cache, monkeypatch):
    now = time.time()
    mine, theirs = Cache(cache.folder, ttl=60), Cache(cache.folder, ttl=60)
    mine.put(KEY, ANSWER)
    monkeypatch.setattr("time.time", lambda: now + 100)
    theirs.put(KEY, msgspec.structs.replace(ANSWER, id="renewed"))
    assert mine.get(KEY).response.id == "renewed"
    mine.close()
    theirs.close()


def test_old_entries_can_be_pruned(cache, monkeypatch):
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now - 1000)
    cache.put("old", ANSWER)
    monkeypatch.undo()
    cache.put("new", ANSWER)
    assert cache.prune(older_than=500) == 1
    assert [key for key, _ in cache.entries()] == ["new"]


@pytest.fixture
def begun(monkeypatch):
    """Collect the transactions that are begun on the connections of caches."""
    seen, connect = [], table._connect

    def watched(*arguments):
        connection = connect(*arguments)
        connection.set_trace_callback(lambda statement: seen.append(statement) if statement.startswith("BEGIN") else None)
        return connection

    monkeypatch.setattr(table, "_connect", watched)
    return seen


def old_entries(cache, monkeypatch, count):
    """Store entries that are 1,000 seconds old; the first has a value that is kept in a file."""
    now, large = time.time(), msgspec.structs.replace(ANSWER, choices=[Choice(text="x" * 40_000)])
    with monkeypatch.context() as earlier:
        earlier.setattr("time.time", lambda: now - 1000)
        cache.put_many([(f"{n:064x}", ANSWER if n else large, None, None) for n in range(count)])
    assert len(list(cache.folder.glob("??/??/*.val"))) == 1


def test_many_entries_are_removed_in_one_transaction_with_progress(cache, monkeypatch, begun):
    old_entries(cache, monkeypatch, 300)
    cache.put("new", ANSWER)
    monkeypatch.setattr(table, "AT_ONCE", 100)
    begun.clear()
    told = []
    assert cache.prune(older_than=500, progress=lambda *counts: told.append(counts)) == 300
    assert (told, len(begun)) == ([(100, 300), (200, 300), (300, 300)], 1)
    assert [key for key, _ in cache.entries()] == ["new"]
    assert (cache.get(f"{1:064x}"), cache.get("new").response) == (None, ANSWER)  # the memory has forgotten it as well
    assert list(cache.folder.glob("??/??/*.val")) == []
    assert (cache.stats()["entries"], cache.check()) == (1, [])


def test_a_cache_is_cleared_while_others_use_it(cache, monkeypatch, begun):
    old_entries(cache, monkeypatch, 300)
    other = Cache(cache.folder)
    assert other.get(f"{2:064x}").response == ANSWER
    begun.clear()
    assert cache.clear() == 300
    assert len(begun) == 1
    assert list(cache.folder.glob("??/??/*.val")) == []
    assert (other.get(f"{3:064x}"), other.stats()["entries"], other.check()) == (None, 0, [])
    other.put(KEY, ANSWER)
    assert (cache.get(KEY).response, cache.stats()["entries"]) == (ANSWER, 1)  # diskcache's triggers count again
    assert cache.clear() == 1
    other.close()


def test_a_cache_that_somebody_writes_to_is_not_cleared(cache, monkeypatch):
    cache.put(KEY, ANSWER)
    monkeypatch.setattr("runner.cache.store.TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(cache.folder / "cache.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(CacheError, match="could not be cleared: database is locked; try again"):
            cache.clear()
        writer.execute("ROLLBACK")
    assert reopened(cache).get(KEY).response == ANSWER


def test_an_entry_of_another_version_is_a_miss(cache):
    cache.put(KEY, ANSWER)
    cache.close()
    with sqlite3.connect(cache.folder / "cache.db") as database:
        [(value,)] = database.execute("SELECT value FROM Cache").fetchall()
        newer = json.dumps(json.loads(value) | {"v": 99}).encode()
        database.execute("UPDATE Cache SET value = ?", (newer,))
    database.close()
    assert Cache(cache.folder).get(KEY) is None


def test_memory_is_bounded_and_may_be_zero(folder):
    small = Cache(folder, memory_entries=2)
    for n in range(5):
        small.put(str(n), ANSWER)
    assert list(small._memory) == ["3", "4"]
    assert small.get("0") is not None
    assert list(small._memory) == ["4", "0"]
    small.close()
    none = Cache(folder, memory_entries=0)
    assert none.get("0") is not None
    assert not none._memory
    none.close()


def test_the_oldest_entries_are_removed_at_the_size_limit(folder):
    limit = 400_000
    bounded = Cache(folder, size_limit=limit, memory_entries=0)
    long = Response(choices=[Choice("x" * 4000, "stop")])
    for n in range(300):
        bounded.put(f"{n:03}", long)
    kept = [key for key, _ in bounded.entries()]
    assert 20 < len(kept) < 110
    assert kept[-1] == "299"
    assert kept == sorted(kept)
    assert bounded.stats()["bytes"] < limit * 1.2
    bounded.close()


def test_a_large_answer_has_its_own_file(cache):
    large = Response(choices=[Choice("x" * 200_000, "stop")])
    cache.put(KEY, large)
    opened = reopened(cache)
    assert opened.get(KEY).response == large
    assert len(list(opened.folder.glob("??/??/*.val"))) == 1
    opened.close()


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        (Choice("4", "stop"), True),
        (Choice("", "stop"), False),
        (Choice("4", None), True),
        (Choice(None, "tool_calls", tool_calls=[{"id": "1"}]), True),
        (Choice("4", "length"), False),
        (Choice("4", "content_filter"), False),
        (Choice("I cannot", "refusal"), False),
        (Choice(None, "stop"), False),
    ],
)
def test_only_complete_answers_are_worth_keeping(choice, kept):
    assert worth_keeping(Response(choices=[choice])) is kept
    assert worth_keeping(Response(choices=[Choice("4", "stop"), choice])) is kept


async def test_an_answer_that_is_stored_soon_is_stored_when_it_is_looked_up(cache):
    cache.put_soon((KEY, ANSWER, REQUEST, 0.25))
    assert (entry := cache.get(KEY)) is not None
    assert (entry.response, entry.cost_usd) == (ANSWER, 0.25)
    with closing(Cache(cache.folder)) as other:
        assert other.get(KEY).response == ANSWER
    cache.settle()
    assert [key for key, _ in cache.entries()] == [KEY]


async def test_whatever_storing_raises_reaches_those_who_rely_on_it(cache, monkeypatch):
    def fails(self, items):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Cache, "put_many", fails)
    with pytest.raises(RuntimeError, match="new thread"):
        await asyncio.wait_for(cache.aput((KEY, ANSWER, REQUEST, None)), 10)
    cache.put_soon((KEY, ANSWER, REQUEST, None))
    with pytest.raises(RuntimeError, match="new thread"):
        cache.settle()
    cache.settle()  # it is told once


# --- on disk


def test_the_folder_is_private(cache):
    cache.put(KEY, ANSWER)
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_an_open_folder_is_made_private(cache):
    cache.folder.mkdir(mode=0o755)
    cache.folder.chmod(0o755)
    cache.put(KEY, ANSWER)
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_values_are_json_that_any_sqlite_can_read(cache):
    cache.put(KEY, ANSWER, request=REQUEST, cost_usd=0.5)
    cache.close()
    with sqlite3.connect(cache.folder / "cache.db") as database:
        rows = database.execute("SELECT key, mode, value FROM Cache").fetchall()
    database.close()
    [(key, mode, value)] = rows
    assert (key, mode) == (KEY, 1)
    entry = json.loads(value)
    assert entry["v"] == 1
    assert entry["response"]["choices"][0]["text"] == "4"
    assert entry["request"]["messages"] == ASKED
    assert entry["cost_usd"] == 0.5


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def plant(folder, key, mode, value, *, raw=1):
    with sqlite3.connect(folder / "cache.db") as database:
        database.execute(
            "INSERT OR REPLACE INTO Cache(key, raw, store_time, access_time, access_count, tag, size, mode, filename, value)"
            " VALUES (?, ?, 0, 0, 0, NULL, 0, ?, NULL, ?)",
            (key, raw, mode, value),
        )
    database.close()


def test_a_planted_pickle_does_not_run(cache, tmp_path):
    """diskcache unpickles rows of mode 4, and keys that are not raw; this cache must not."""
    cache.put("good", ANSWER)
    cache.close()
    struck = tmp_path / "struck"
    bomb = pickle.dumps(Bomb(struck))
    plant(cache.folder, KEY, 4, bomb)
    plant(cache.folder, bomb, 4, bomb, raw=0)
    opened = Cache(cache.folder)
    assert opened.get(KEY) is None
    assert [key for key, _ in opened.entries()] == ["good"]
    assert opened.prune(older_than=0) == 1
    opened.put(KEY, ANSWER)
    assert opened.get(KEY).response == ANSWER
    assert opened.clear() >= 1
    opened.close()
    assert not struck.exists()
    pickle.loads(bomb)
    assert struck.exists()  # so the pickle does run elsewhere


def test_rows_that_are_not_entries_are_misses(cache, tmp_path):
    cache.put("good", ANSWER)
    cache.close()
    (tmp_path / "file").write_bytes(b"not an entry")
    for key, mode, value in [("int", 1, 7), ("text", 1, "text"), ("none", 1, None), ("junk", 1, b"\xff\x00"), ("json", 1, b"[]")]:
        plant(cache.folder, key, mode, value)
    opened = Cache(cache.folder)
    assert opened.get_many(["int", "text", "none", "junk", "json"]) == {}
    opened.close()


def test_a_settings_row_cannot_enable_pickles(cache, tmp_path):
    cache.put("good", ANSWER)
    cache.close()
    bomb = pickle.dumps(Bomb(tmp_path / "struck"))
    with sqlite3.connect(cache.folder / "cache.db") as database:
        database.execute("INSERT OR REPLACE INTO Settings VALUES ('disk_pickle_protocol', 0)")
        database.execute("INSERT OR REPLACE INTO Settings VALUES ('eviction_policy', ?)", (bomb,))
    database.close()
    opened = Cache(cache.folder)
    assert opened.get("good") is not None
    opened.close()
    assert not (tmp_path / "struck").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # diskcache leaves the bad file open
def test_a_corrupt_database_is_a_miss_and_one_warning(cache):
    cache.folder.mkdir(mode=0o700)
    (cache.folder / "cache.db").write_bytes(os.urandom(20_000))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert cache.get(KEY) is None
        cache.put(KEY, ANSWER)
        assert cache.get("other") is None
        assert cache.get(KEY).response == ANSWER  # memory still works
        assert list(cache.entries()) == []
    [warning] = [str(warning.message) for warning in seen if issubclass(warning.category, UserWarning)]
    assert str(cache.folder) in warning
    assert "cannot be used" in warning
    assert "ostinato cache clear" in warning
    assert cache.check()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Cache(cache.folder).clear() == 0  # as the warning says, and another process does
        assert not (cache.folder / "cache.db").exists()
    cache.clear()
    cache.put(KEY, ANSWER)
    assert reopened(cache).get(KEY).response == ANSWER


def test_a_database_that_becomes_corrupt_in_use_is_one_warning(cache):
    for n in range(200):
        cache.put(str(n), ANSWER)
    cache.close()
    file = cache.folder / "cache.db"
    data = bytearray(file.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    file.write_bytes(data)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        opened = Cache(cache.folder)
        assert all(opened.get(str(n)) is None for n in range(20))
        opened.put("x", ANSWER)
    assert len([warning for warning in seen if issubclass(warning.category, UserWarning)]) == 1
    opened.close()


def test_a_truncated_database_does_not_crash(cache):
    for n in range(200):
        cache.put(str(n), ANSWER)
    cache.close()
    file = cache.folder / "cache.db"
    file.write_bytes(file.read_bytes()[:10_000])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = Cache(cache.folder)
        for n in range(200):
            opened.get(str(n))
            opened.put(str(n), ANSWER)
        opened.close()


def test_a_database_with_another_schema_is_one_warning(cache):
    cache.folder.mkdir(mode=0o700)
    with sqlite3.connect(cache.folder / "cache.db") as database:
        database.execute("CREATE TABLE Cache (mine TEXT)")
    database.close()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert cache.get(KEY) is None
        cache.put(KEY, ANSWER)
    assert len([warning for warning in seen if issubclass(warning.category, UserWarning)]) == 1


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(CacheError, match=r"cannot be used: .*; set cache\.dir or OSTINATO_HOME"):
            Cache(folder).get(KEY)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_read_only_folder_is_an_error(cache):
    cache.put(KEY, ANSWER)
    cache.close()
    cache.folder.chmod(0o500)
    try:
        with pytest.raises(CacheError, match="cannot be used"):
            Cache(cache.folder).get("x")
    finally:
        cache.folder.chmod(0o700)


# --- several processes and threads

WRITER = """
import sys
from pathlib import Path
from runner.cache import Cache
from runner.types import Choice, Response
cache = Cache(Path(sys.argv[1]), memory_entries=0)
who, count = sys.argv[2], int(sys.argv[3])
for n in range(count):
    cache.put(f"{who}-{n}", Response(choices=[Choice(f"{who} {n} " + "x" * (50_000 if n % 50 == 0 else 100), "stop")]))
    cache.put("shared", Response(choices=[Choice(f"{who} {n}", "stop")]))
    if n == 20:
        print("under way", flush=True)
"""


def writer(folder, who, count):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), who, str(count)], stdout=subprocess.PIPE, text=True)


def test_two_processes_share_one_cache(folder):
    processes = [writer(folder, who, 100) for who in ("a", "b")]
    for process in processes:
        with process:
            assert process.wait(60) == 0
    cache = Cache(folder)
    assert cache.check() == []
    for who in ("a", "b"):
        for n in range(100):
            assert cache.get(f"{who}-{n}").response.choices[0].text.startswith(f"{who} {n} ")
    assert cache.get("shared").response.choices[0].text in ("a 99", "b 99")
    cache.close()


def test_a_killed_writer_leaves_a_valid_cache(folder):
    with writer(folder, "a", 10**6) as process:
        assert process.stdout.readline() == "under way\n"
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    cache = Cache(folder)
    assert cache.check() == []
    keys = [key for key, _ in cache.entries()]
    assert len(keys) > 20
    assert all(cache.get(f"a-{n}") is not None for n in range(20))
    cache.put(KEY, ANSWER)
    assert cache.get(KEY) is not None
    cache.close()


def test_threads_share_one_cache(cache):
    start = threading.Barrier(8)

    def work(who):
        start.wait()  # all threads open the database at once
        for n in range(25):
            cache.put(f"{who}-{n}", ANSWER)
            assert cache.get(f"{who}-{n}") is not None
            cache.get(f"{(who + 1) % 8}-{n}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert cache.stats()["entries"] == 200


def test_the_log_stays_small_while_answers_are_stored_without_a_pause(folder, monkeypatch):
    monkeypatch.setattr(table, "LOG_BYTES", 2**20)
    log, sizes = folder / "cache.db-wal", []
    with closing(Cache(folder)) as cache:
        for number in range(1500):
            cache.put_many([(f"{number} {one}", ANSWER, None, None) for one in range(12)])
            sizes.append(log.stat().st_size)
        assert len(cache.get_many([f"{number} 0" for number in range(1500)])) == 1500
    assert max(sizes) < 48 * table.LOG_BYTES  # it would be half as large again, and grow with each row


def test_a_checkpoint_that_cannot_begin_leaves_the_answers_stored(folder, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(table, "CHECKPOINT_EVERY", 1)
    with closing(Cache(folder)) as cache:
        cache.changes()  # opens the database
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError, match="new thread"):
                cache.put(KEY, ANSWER)
        with closing(Cache(folder)) as other:
            assert other.get(KEY).response == ANSWER
        cache.put("a" * 64, ANSWER)
