"""Quantities with a unit are read in the unit of their key."""

import pytest

from runner.config.compose import compose
from runner.config.load import dump, load
from runner.config.older import hashed
from runner.config.units import GIGABYTES, SECONDS, in_unit_of
from runner.errors import ConfigError


@pytest.mark.parametrize(
    ("unit", "seconds"), [("ms", 0.0015), ("s", 1.5), ("m", 90), ("min", 90), ("h", 5400), ("d", 129_600), ("w", 907_200)]
)
def test_times_have_units(unit, seconds):
    assert in_unit_of("limits.timeout_s", f"1.5{unit}") == in_unit_of("cache.ttl", f" 1.5 {unit} ") == pytest.approx(seconds)
    assert set(SECONDS) == {"ms", "s", "m", "min", "h", "d", "w"}


@pytest.mark.parametrize(("unit", "size"), [("MB", 0.002), ("GB", 2), ("TB", 2000), ("MiB", 0.002097152), ("GiB", 2.147483648)])
def test_sizes_have_units(unit, size):
    assert in_unit_of("cache.size", f"2{unit}") == pytest.approx(size)
    assert set(GIGABYTES) == {"MB", "GB", "TB", "MiB", "GiB", "TiB"}


@pytest.mark.parametrize("key", ["data.rows[0].time_s", "prompt.user", "model.params.time_s", "name"])
def test_other_text_stays_as_it_is(key):
    assert in_unit_of(key, "5m") == "5m"


def test_a_config_takes_units_from_overrides_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/limits").mkdir(parents=True)
    (tmp_path / "conf/limits/mine.yaml").write_text("deadline_s: 2h\n")
    config = compose(["model=fake", "limits=mine", "cache.ttl=30d", "cache.size=500MB"]).config()
    assert (config.limits.deadline_s, config.cache.ttl, config.cache.size) == (7200, 2_592_000, 0.5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cache.ttl=3x", r"cache\.ttl: there is no unit 'x'; units are ms, s,"),
        ("cache.size=2gb", "there is no unit 'gb'; units are MB, GB,"),
        ("limits.timeout_s=soon", "expected float, got str 'soon'"),
    ],
)
def test_an_unknown_unit_is_told(override, message):
    with pytest.raises(ConfigError, match=message):
        compose(["model=fake", override]).config()


def test_the_older_name_of_a_key_is_read_and_changes_no_hash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert compose(["model=fake", "cache.size_limit_gb=500MB"]).config().cache.size == 0.5
    (tmp_path / "conf/cache").mkdir(parents=True)
    (tmp_path / "conf/cache/mine.yaml").write_text("defaults: [default]\nsize_limit_gb: 3GB\n")
    assert compose(["model=fake", "cache=mine"]).config().cache.size == 3
    recorded = {"cache": {"mode": "rw", "dir": None, "ttl": None, "size_limit_gb": 3.0, "served": "warn"}}
    assert load(recorded) == load({"cache": {"size": 3.0}})
    assert hashed("cache", dump(load(recorded))["cache"]) == {
        name: value for name, value in recorded["cache"].items() if name != "served"
    }
