"""Marks: once all keys of a folder are marked, an absent key is known to be absent without a look at the disk."""

import pytest

from runner.cache import Cache, marks, table
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
