"""README.md says what is true: its Python runs, its commands compose, its list of verbs is the command's."""

import re
import shlex
from pathlib import Path

import pytest

from runner.cli import VERBS
from runner.config.compose import compose
from runner.sweeps.plan import Plan

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands():
    text = "".join(blocks("console")).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


def test_the_first_two_sh_blocks_are_one_command_each():
    first, second = blocks("sh")
    assert len(first.strip().splitlines()) == len(second.strip().splitlines()) == 1
    assert first.strip().endswith("ostinato run")
    assert second.strip().endswith("pytest -n 2")


@pytest.mark.parametrize("source", blocks("python"))
def test_python_runs(source, in_tmp):
    exec(compile(source, "README.md", "exec"), {})  # the README's own code


def overrides_of(command):
    return [word for word in shlex.split(command, comments=True)[2:] if "=" in word]


SINGLE = [command for command in commands() if command.split()[1] in ("run", "validate", "pipeline") and " -m " not in command]
SWEEPS = [command for command in commands() if " -m " in command]


@pytest.mark.parametrize("command", SINGLE)
def test_commands_compose(command, in_tmp):
    compose(overrides_of(command)).config()


@pytest.mark.parametrize("command", SWEEPS)
def test_sweeps_can_be_planned(command, in_tmp):
    assert Plan(overrides_of(command)).keys


def test_there_are_some():
    assert len(SINGLE) > 8
    assert len(SWEEPS) > 2


def test_commands_use_verbs_that_exist():
    assert commands()
    assert {command.split()[1] for command in commands()} <= set(VERBS)


def test_the_experiment_file_plays(in_tmp):
    (source,) = blocks("yaml")
    folder = in_tmp / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "gsm8k.yaml").write_text(source)
    config = compose(["experiment=gsm8k"]).config()
    assert (config.name, config.data.limit, config.sampling.max_tokens) == ("gsm8k", 30, 200)


def test_the_list_of_verbs_is_the_commands():
    (listed,) = [block for block in blocks("text") if block.startswith("run ")]
    assert listed.split("\n")[:-1] == [f"{verb:<10}{summary}" for verb, (_, summary) in VERBS.items()]


def test_config_groups_and_options_are_those_shipped():
    from runner.system.paths import shipped_conf

    table = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", README, re.MULTILINE))
    for group, options in table.items():
        shipped = {file.stem for file in (shipped_conf() / group).glob("*.yaml")}
        named = set(re.findall(r"`(\w+)`", options))
        assert named | {"default"} == shipped, group
