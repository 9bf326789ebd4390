"""Aliases: versions never change, latest moves, mistakes are named."""

import json
from concurrent.futures import ProcessPoolExecutor

import pytest

import runner
from runner import build
from runner.config.compose import compose, read
from runner.errors import ConfigError
from runner.models import aliases

TUNED = {"kind": "local", "name": "ft-0123456789ab"}
OTHER = {"kind": "local", "name": "ft-ba9876543210"}


def test_registering_a_model_moves_latest_and_keeps_versions():
    aliases.register("tickets", TUNED, {"run": "a"})
    aliases.register("tickets", OTHER, {"run": "b"})
    assert aliases.resolve("tickets@latest")[0] == "tickets@2"
    assert aliases.resolve("tickets@latest")[1].model == OTHER
    assert aliases.resolve("tickets@1") == ("tickets@1", aliases.find("tickets").versions[0])
    assert aliases.resolve("tickets@1")[1].lineage == {"run": "a"}


def test_registering_the_same_model_again_changes_nothing():
    first = aliases.register("tickets", TUNED, {"run": "a"})
    assert aliases.register("tickets", TUNED, {"run": "b"}) == first
    assert len(aliases.find("tickets").versions) == 1


def test_registering_an_earlier_model_adds_a_version():
    for model in (TUNED, OTHER, TUNED):
        aliases.register("tickets", model, {})
    assert aliases.resolve("tickets@latest")[0] == "tickets@3"


def test_the_file_is_readable_json_with_a_format():
    aliases.register("tickets", TUNED, {})
    told = json.loads((aliases.folder() / "tickets.json").read_text())
    assert told["format"] == 1
    assert told["versions"][0]["model"] == TUNED


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("tikets@latest", "did you mean 'tickets@latest'"),
        ("tickets@7", "has the versions 1"),
        ("tickets", "NAME@latest"),
        ("tickets@0", "NAME@latest"),
    ],
)
def test_an_unknown_reference_lists_what_exists(reference, told):
    aliases.register("tickets", TUNED, {})
    with pytest.raises(ConfigError, match=told):
        aliases.resolve(reference)


def test_alias_names_with_path_parts_are_refused():
    with pytest.raises(ConfigError, match="cannot be an alias"):
        aliases.register("../x", TUNED, {})
    assert not aliases.remove("../x")


def test_a_broken_file_is_named_in_the_error():
    aliases.register("tickets", TUNED, {})
    (aliases.folder() / "tickets.json").write_text("{")
    with pytest.raises(ConfigError, match=r"tickets\.json cannot be read"):
        aliases.resolve("tickets@latest")


def _register(number):
    aliases.register("tickets", {"kind": "local", "name": f"ft-{number}"}, {})


def test_concurrent_processes_lose_no_version():
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_register, range(20)))
    assert [one.version for one in aliases.find("tickets").versions] == list(range(1, 21))
    assert aliases.remove("tickets")
    assert aliases.listed() == []


def test_a_run_uses_the_model_of_the_alias_and_records_its_version(in_tmp):
    aliases.register("yes", {"kind": "fake", "name": "a", "reply": "yes"}, {})
    overrides = ["model=yes@latest", "execution.orchestrator=none", "data.limit=2"]
    result = runner.run(overrides=overrides)
    assert {sample.output for sample in result.samples} == {"yes"}
    aliases.register("yes", {"kind": "fake", "name": "a", "reply": "no"}, {})
    again = runner.run(overrides=[f"cache.dir={in_tmp / 'other'}", *overrides])
    assert {sample.output for sample in again.samples} == {"no"}
    recorded = runner.run(read(result.folder / "config.yaml"))
    assert {sample.output for sample in recorded.samples} == {"yes"}


def test_other_model_keys_apply_to_the_model_of_the_alias():
    aliases.register("tickets", TUNED, {})
    model = build.pinned(compose(["model=tickets@latest", "model.params.seed=7"]).config().model)
    assert (model.name, model.params) == ("ft-0123456789ab", {"seed": 7})


def test_an_unregistered_alias_is_a_config_error(in_tmp):
    with pytest.raises(ConfigError, match="no model is registered as 'tickets'"):
        runner.run(overrides=["model=tickets@latest"])
