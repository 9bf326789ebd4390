"""Compositions that are kept: the same command composes without Hydra, and everything that it depends on is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runner.config import kept
from runner.config.compose import compose
from runner.errors import ConfigError
from runner.system.paths import home

MODULES = """
import sys
from runner.config.compose import compose
config = compose({overrides}).config()
print(config.sampling.temperature, "hydra" in sys.modules or "omegaconf" in sys.modules)
"""


def compositions():
    return sorted((home() / "compositions").glob("*.json"))


def in_a_process(*overrides):
    """Compose in a new process. Return the temperature, and whether Hydra was imported."""
    done = subprocess.run(
        [sys.executable, "-c", MODULES.format(overrides=list(overrides))], capture_output=True, text=True, check=True
    )
    temperature, imported = done.stdout.split()
    return float(temperature), imported == "True"


@pytest.fixture(autouse=True)
def _at_home(in_tmp, monkeypatch):
    monkeypatch.setenv("OSTINATO_HOME", str(Path("home").absolute()))


def test_the_same_command_composes_without_hydra():
    assert in_a_process("model=fake", "sampling.temperature=0.5") == (0.5, True)
    assert in_a_process("model=fake", "sampling.temperature=0.5") == (0.5, False)
    assert in_a_process("model=fake", "sampling.temperature=0.6") == (0.6, True)


def test_it_is_the_same_composition():
    first = compose(["model=fake", "prompt.user=${{ question }}", "+model.params.a=[1,2.0,true,null]"])
    assert len(compositions()) == 1
    again = compose(["model=fake", "prompt.user=${{ question }}", "+model.params.a=[1,2.0,true,null]"])
    assert again == first
    assert json.dumps(again.raw) == json.dumps(first.raw)


def test_a_changed_file_is_noticed():
    Path("conf/sampling").mkdir(parents=True)
    own = Path("conf/sampling/own.yaml")
    own.write_text("defaults: [default]\ntemperature: 0.25\n")
    assert compose(["sampling=own"]).config().sampling.temperature == 0.25
    own.write_text("defaults: [default]\ntemperature: 0.75\n")
    assert compose(["sampling=own"]).config().sampling.temperature == 0.75
    own.unlink()
    with pytest.raises(ConfigError, match="own"):
        compose(["sampling=own"])


def test_an_interpolation_is_resolved_each_time(monkeypatch):
    overrides = ["model=fake", "name=${oc.env:EXPERIMENT}"]
    for name in ("first-name", "second-name"):
        monkeypatch.setenv("EXPERIMENT", name)
        assert compose(overrides).config().name == name
    assert all("first-name" not in file.read_text() for file in compositions())


def test_nothing_is_kept_that_is_no_config_or_holds_a_secret():
    for overrides in (["sampling.temperature=warm"], ["+model.params.api_token=Zx81kQ0pLw93mNb7TtYy"], ["sampling.temprature=1"]):
        with pytest.raises(ConfigError):
            compose(overrides).config()
    compose(["prompt.user=my key is sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD"])
    assert compositions() == []


def test_nor_where_a_search_path_leads_elsewhere():
    Path("elsewhere/sampling").mkdir(parents=True)
    Path("elsewhere/sampling/far.yaml").write_text("defaults: [default]\ntemperature: 0.25\n")
    overrides = [f"hydra.searchpath=[file://{Path('elsewhere').absolute()}]", "sampling=far"]
    assert compose(overrides).config().sampling.temperature == 0.25
    assert compositions() == []


def test_keys_that_json_cannot_hold_are_composed_each_time():
    overrides = ["model=fake", "+model.params.logit_bias={7: 1}"]
    assert compose(overrides).raw == compose(overrides).raw
    assert compositions() == []


def test_a_broken_file_is_composed_again():
    compose(["model=fake"])
    for content in (b"", b"{", b'{"raw": 1}'):
        compositions()[0].write_bytes(content)
        assert compose(["model=fake"]).config().model.name
        assert json.loads(compositions()[0].read_text())["choices"]["model"] == "fake"


def test_the_older_half_goes_when_there_are_many(monkeypatch):
    monkeypatch.setattr(kept, "MOST", 4)
    for number in range(9):
        compose(["model=fake", f"sampling.seed={number}"])
    assert 2 <= len(compositions()) <= 4
    before = {file.name for file in compositions()}
    compose(["model=fake", "sampling.seed=8"])
    assert {file.name for file in compositions()} == before


def test_a_home_that_cannot_be_written_is_no_error(monkeypatch):
    Path("file").write_text("")
    monkeypatch.setenv("OSTINATO_HOME", str(Path("file").absolute()))
    assert compose(["model=fake"]).config().model.name


def test_a_changed_file_behind_a_link_to_a_folder_is_noticed():
    Path("shared").mkdir()
    Path("shared/own.yaml").write_text("defaults: [default]\ntemperature: 0.25\n")
    Path("conf").mkdir()
    Path("conf/sampling").symlink_to(Path("shared").absolute(), target_is_directory=True)
    Path("shared/again").symlink_to(Path("shared").absolute(), target_is_directory=True)  # a loop
    assert in_a_process("model=fake", "sampling=own")[0] == 0.25
    Path("shared/own.yaml").write_text("defaults: [default]\ntemperature: 0.75\n")
    assert in_a_process("model=fake", "sampling=own")[0] == 0.75
