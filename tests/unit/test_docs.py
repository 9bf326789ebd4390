"""README.md and docs/ are true: Python runs, commands parse and compose, and blocks marked `<!-- run -->` are played."""

import argparse
import importlib
import re
import shlex
import warnings
from pathlib import Path

import pytest

from runner.cli import VERBS, main
from runner.config.compose import compose
from runner.sweeps.plan import Plan
from runner.system.paths import shipped_conf

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMPOSED = ("run", "validate", "pipeline")
"""Verbs whose overrides are those of an experiment."""


def blocks(page, language):
    return [found["text"] for found in BLOCK.finditer(page.read_text("utf-8")) if found["language"] == language]


def commands_of(text):
    """The commands of a console block, as lists of words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ ")]


def write_files(page, folder):
    """Write the files that the page shows, each under the name in the comment before it."""
    for found in BLOCK.finditer(page.read_text("utf-8")):
        if (found["mark"] or "").startswith("file: "):
            path = folder / found["mark"].removeprefix("file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found["text"], "utf-8")


COMMANDS = [(page, command) for page in PAGES for text in blocks(page, "console") for command in commands_of(text)]
PYTHON = [(page, source) for page in PAGES for source in blocks(page, "python")]
PLAYED = [page for page in PAGES if "<!-- run -->" in page.read_text("utf-8")]


def test_there_are_some():
    assert (len(COMMANDS) > 60, len(PYTHON) > 3, len(PLAYED) > 2) == (True, True, True)


def named(case):
    page, content = case
    return f"{page.stem}: {' '.join(content) if isinstance(content, list) else content.strip().splitlines()[-1]}"[:80]


def test_the_first_two_sh_blocks_are_one_command_each():
    first, second = blocks(README, "sh")
    assert len(first.strip().splitlines()) == len(second.strip().splitlines()) == 1
    assert first.strip().endswith("ostinato run")
    assert second.strip().endswith("pytest -n 3")


def test_every_page_is_linked_from_the_front_page():
    linked = set(re.findall(r"\]\(docs/(\w+\.md)\)", README.read_text("utf-8")))
    assert linked == {page.name for page in PAGES if page != README}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("case", PYTHON, ids=named)
def test_python_runs(case, in_tmp):
    page, source = case
    exec(compile(source, page.name, "exec"), {})  # the documentation's own code


@pytest.mark.parametrize("case", COMMANDS, ids=named)
def test_commands_parse_and_compose(case, in_tmp):
    page, (program, verb, *words) = case
    assert program == "ostinato"
    module = importlib.import_module(VERBS[verb][0])
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.configure(parser)
    parse = parser.parse_intermixed_args if getattr(module, "TAKES_OVERRIDES", False) else parser.parse_args
    parsed = parse(words)
    if verb not in COMPOSED:
        return
    write_files(page, in_tmp)
    overrides = parsed.overrides
    if "-m" in words:
        assert Plan(overrides).keys
    elif overrides:
        compose(overrides).config()


@pytest.mark.parametrize("page", PLAYED, ids=lambda page: page.name)
def test_marked_blocks_are_played_in_order(page, in_tmp, monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setenv("CI", "1")
    write_files(page, in_tmp)
    played = [found["text"] for found in BLOCK.finditer(page.read_text("utf-8")) if found["mark"] == "run"]
    for _, verb, *words in (command for text in played for command in commands_of(text)):
        offline = ["execution.orchestrator=none"] if verb in COMPOSED else []
        assert main([verb, *words, *offline]) == 0, (verb, words, capsys.readouterr().err)


def test_the_list_of_verbs_is_that_of_the_command():
    (listed,) = [text for text in blocks(ROOT / "docs" / "commands.md", "text") if text.startswith("init ")]
    assert listed.split("\n")[:-1] == [f"{verb:<9} {summary}" for verb, (_, summary) in VERBS.items()]


def test_config_groups_and_options_are_those_shipped():
    table = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", (ROOT / "docs" / "configuration.md").read_text("utf-8"), re.MULTILINE))
    shipped = {folder.name for folder in shipped_conf().iterdir() if folder.is_dir()}
    assert set(table) == shipped - {"experiment", "local"}
    for group, options in table.items():
        files = {file.stem for file in (shipped_conf() / group).glob("*.yaml")}
        assert set(re.findall(r"`(\w+)`", options)) | {"default"} == files | {"default"}, group
