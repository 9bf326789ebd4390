"""Marks: once all keys of a folder are marked, an absent key is known to be absent without a look at the disk."""

import os
import sqlite3
from contextlib import closing

import pytest

from runner.cache import Cache, marks, store, table
from runner.errors import CacheError
from runner.types import Choice, Response

ANSWER = Response(choices=[Choice("yes", "stop")])
KEYS = [f"{number:064x}" for number in range(1000)]
ABSENT = [f"{number:064x}" for number in range(5000, 6000)]
FEW = 20
"""The most absent keys that may share a mark: one of 1,000 can be expected to."""


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a cache that holds `KEYS`."""
    cache = Cache(tmp_path / "cache")
    cache.put_many([(key, ANSWER, None, None) for key in KEYS])
    cache.close()
    return cache.folder


def looks(cache, keys):
    """Return how many statements it takes to look up all of `keys`, one at a time."""
    cache.changes()  # opens the database
    said = []
    cache._table._reader.set_trace_callback(said.append)
    for key in keys:
        assert cache.get(key) is None
    cache._table._reader.set_trace_callback(None)
    return len(said)


def test_absent_keys_of_a_small_folder_are_soon_known(tmp_path):
    cache = Cache(tmp_path / "cache")
    assert looks(cache, ABSENT) <= marks.FIRST + FEW
    cache.close()


def test_keys_are_listed_once_lookups_in_vain_have_taken_as_long(folder):
    cache = Cache(folder)
    paid = len(KEYS) // marks.KEYS_PER_LOOKUP
    assert looks(cache, ABSENT[:paid]) >= paid
    assert looks(cache, ABSENT[: 4 * paid]) < 2 * paid
    assert looks(cache, ABSENT) <= FEW
    assert all(cache.get(key).response == ANSWER for key in KEYS)
    cache.close()


def test_a_folder_with_too_many_keys_is_never_listed(folder, monkeypatch):
    monkeypatch.setattr(marks, "MOST", len(KEYS) - 1)
    cache = Cache(folder)
    assert looks(cache, ABSENT) >= len(ABSENT)
    cache.close()


def test_what_others_store_later_is_found(folder, monkeypatch):
    monkeypatch.setattr(table, "LOOK_S", 0.0)
    ours, theirs = Cache(folder), Cache(folder)
    looks(ours, ABSENT)
    assert looks(ours, ABSENT) <= FEW
    theirs.put(ABSENT[0], ANSWER)
    assert ours.get(ABSENT[0]).response == ANSWER
    assert looks(ours, ABSENT[1:]) > FEW  # nothing is known until the keys are listed again
    assert looks(ours, ABSENT[1:]) <= FEW
    theirs.put(ABSENT[1], ANSWER)
    assert ours.get(ABSENT[1]).response == ANSWER
    ours.close()
    theirs.close()


def test_our_own_answers_are_found_after_they_have_left_the_memory(tmp_path):
    cache = Cache(tmp_path / "cache", memory_entries=1)
    looks(cache, ABSENT[:100])
    for key in KEYS[:50]:
        cache.put(key, ANSWER)
    assert all(cache.get(key).response == ANSWER for key in KEYS[:50])
    assert looks(cache, ABSENT[:100]) <= FEW  # our own answers are no change
    cache.close()


def store_elsewhere(folder, key):
    other = Cache(folder)
    other.put(key, ANSWER)
    other.close()


def test_what_others_store_while_the_folder_is_closed_is_found(folder):
    cache = Cache(folder)
    looks(cache, ABSENT)
    assert looks(cache, ABSENT) <= FEW
    since = cache.changes()
    cache.close()
    store_elsewhere(folder, ABSENT[0])
    store_elsewhere(folder, ABSENT[1])
    assert cache.get(ABSENT[0]) is not None
    assert cache.get(ABSENT[1], missing_since=since) is not None
    cache.close()


def test_what_others_store_before_a_child_opens_the_folder_is_found(folder):
    cache = Cache(folder)
    looks(cache, ABSENT)
    since = cache.changes()
    store_elsewhere(folder, ABSENT[0])
    child = os.fork()
    if not child:
        try:
            found = cache.get(ABSENT[0], missing_since=since)
            os._exit(0 if found is not None else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    cache.close()


def test_a_key_is_marked_before_it_leaves_the_memory(tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache", memory_entries=1)
    since, add, found = cache.changes(), marks.Marks.add, []

    def looked_up_before(self, keys):  # as by another thread
        found.extend(cache.get(key, missing_since=since) for key in keys)
        add(self, keys)

    cache.put(KEYS[0], ANSWER)
    monkeypatch.setattr(marks.Marks, "add", looked_up_before)
    cache.put(KEYS[1], ANSWER)
    assert [entry.response for entry in found] == [ANSWER]
    cache.close()


def test_our_own_answers_are_found_if_the_folder_cannot_be_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "TIMEOUT_S", 0.05)
    cache = Cache(tmp_path / "cache")
    since = cache.changes()
    cache.put(KEYS[0], ANSWER)
    with closing(sqlite3.connect(cache.folder / "cache.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(CacheError, match="could not be cleared"):
            cache.clear()
    assert cache.get(KEYS[0], missing_since=since) is not None
    cache.close()


# --- keys that a plan has looked up


def test_a_missing_answer_is_looked_up_again_once_others_have_stored_one(tmp_path, monkeypatch):
    ours, theirs = Cache(tmp_path), Cache(tmp_path)
    monkeypatch.setattr(table, "LOOK_S", 0.0)
    asked = []
    monkeypatch.setattr(Cache, "_fetch_one", lambda self, key: asked.append(key))
    assert ours.get_many(["a" * 64]) == {}
    since = ours.changes()
    ours.put("b" * 64, ANSWER)
    assert (ours.get("a" * 64, missing_since=since), asked) == (None, [])
    theirs.put("a" * 64, ANSWER)
    assert ours.changes() != since
    ours.get("a" * 64, missing_since=since)
    assert asked == ["a" * 64]
    since = ours.changes()
    theirs.put("a" * 64, ANSWER)  # in place of one that had expired, say
    assert ours.changes() != since
    ours.close()
    theirs.close()


def test_an_answer_of_ours_that_has_left_the_memory_is_not_missing(tmp_path):
    cache = Cache(tmp_path, memory_entries=1)
    since = cache.changes()
    cache.put("a" * 64, ANSWER)
    cache.put("b" * 64, ANSWER)
    assert cache.get("a" * 64, missing_since=since) is not None
    cache.close()
