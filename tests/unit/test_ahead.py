"""Reading ahead: lookups in the stored order read many answers at once, and never replace newer ones."""

import random

import pytest

from runner.cache import Cache
from runner.cache.ahead import NEAR, ReadAhead
from runner.types import Choice, Response

KEYS = [f"{number:064x}" for number in range(1000)]


def answer(text):
    return Response(choices=[Choice(text, "stop")])


@pytest.fixture
def folder(tmp_path):
    """Return a cache whose answers are their keys."""
    cache = Cache(tmp_path / "cache")
    cache.put_many([(key, answer(key), None, None) for key in KEYS])
    cache.close()
    return cache.folder


def statements(cache, keys):
    """Return how many statements it takes to get all of `keys`, one at a time."""
    cache.get(KEYS[-1])  # opens the database
    said = []
    cache._table._reader.set_trace_callback(said.append)
    for key in keys:
        assert cache.get(key).response == answer(key)
    cache.close()
    return len(said)


def test_lookups_in_order_need_few_statements(folder):
    assert statements(Cache(folder), KEYS[:-1]) < len(KEYS) / 10


def test_lookups_in_nearly_the_stored_order_count_as_in_order(folder):
    jumbled = sorted(KEYS[:-1], key=lambda key: int(key, 16) + random.Random(key).randrange(NEAR // 2))
    assert statements(Cache(folder), jumbled) < len(KEYS) / 4


def test_lookups_out_of_order_read_nothing_ahead(folder):
    apart = [KEYS[number * 311 % 997] for number in range(500)]
    assert statements(Cache(folder), apart) <= len(apart)


def test_nothing_is_read_ahead_without_memory(folder):
    assert statements(Cache(folder, memory_entries=0), KEYS[:100]) == 100


def test_memory_stays_within_its_bound(folder):
    cache = Cache(folder, memory_entries=100)
    for key in KEYS:
        cache.get(key)
    assert len(cache._memory) == 100
    cache.close()


def test_reading_ahead_does_not_replace_answers_in_memory(folder):
    cache = Cache(folder)
    table = (cache.get(KEYS[0]), cache._table)[1]
    stale = table.beyond(0, len(KEYS), 0.0)  # as another thread may have read them just before
    cache.put(KEYS[500], answer("newer"))
    cache._remember(stale, again=False)
    assert cache.get(KEYS[500]).response == answer("newer")
    cache.close()


def test_expired_entries_are_not_read_ahead(folder):
    cache = Cache(folder, ttl=0.001)
    cache.put_many([(key, answer("short-lived"), None, None) for key in KEYS[10:20]])
    cache.close()
    cache = Cache(folder)
    for key in KEYS[:7]:  # the last one reads ahead up to KEYS[10]
        cache.get(key)
    assert KEYS[9] in cache._memory
    assert KEYS[10] not in cache._memory
    cache.close()


def test_the_distance_doubles_in_order_and_drops_to_zero_otherwise():
    ahead, place, sizes = ReadAhead(16), 1, []
    for _ in range(7):
        sizes.append(ahead.beyond(place))
        place += sizes[-1] + 1
    assert sizes == [0, 1, 2, 4, 8, 16, 16]
    assert ahead.beyond(10_000) == 0
