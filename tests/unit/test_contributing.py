"""The pages for contributors say what is true: every path, name and command in them exists, and the picture is the contracts'."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import runner
from runner.cli import VERBS
from tests.support.command import REPOSITORY

PAGES = sorted((REPOSITORY / ".github").rglob("*.md"))
CONTRIBUTING, ARCHITECTURE = (
    (REPOSITORY / ".github" / f"{name}.md").read_text("utf-8") for name in ("CONTRIBUTING", "ARCHITECTURE")
)
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
TOP = (
    "runner/",
    "flows/",
    "tests/",
    "conf/",
    ".ci/",
    ".github/",
    "README.md",
    "CHANGELOG.md",
    "pyproject.toml",
    ".constraints.txt",
)


def named(page):
    """The paths in a page, each with the name in it that is meant: ``runner/lm/call.py:Call.arun``."""
    spans = re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))
    return [span.partition(":")[::2] for span in spans if span.startswith(TOP) and " " not in span and "(" not in span]


def defined(tree):
    """The names that a module or a class defines, with what they are."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield getattr(target, "id", None), node


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page):
    for path, _ in named(page):
        assert list(REPOSITORY.glob(re.sub(r"<\w+>", "*", path.rstrip("/")))), f"{page.name}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_are_defined_where_the_page_says(page):
    for path, name in named(page):
        scope = ast.parse((REPOSITORY / path).read_text("utf-8")) if name else None
        for part in name.split(".") if name else ():
            found = dict(defined(scope))
            assert part in found, f"{page.name}: {path}:{name}"
            scope = found[part]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_there_are_some():
    assert len(PAGES) > 8
    assert sum(bool(name) for page in PAGES for _, name in named(page)) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_use_verbs_that_exist(page):
    for verb in re.findall(r"`(?:\.venv/bin/)?ostinato (\w+)", page.read_text("utf-8")):
        assert verb in VERBS, f"{page.name}: ostinato {verb}"


def test_the_commands_to_install_and_check_are_those_of_the_repository():
    install, quick, full = (block.strip() for block in re.findall(r"^```sh\n(.*?)^```", CONTRIBUTING, re.MULTILINE | re.DOTALL))
    assert f"{install} && " in (REPOSITORY / "README.md").read_text("utf-8")
    script = (REPOSITORY / full).read_text("utf-8").splitlines()
    checks, tests = quick.splitlines()
    assert set(checks.split(" && ")) <= set(script)
    assert tests in (REPOSITORY / "tests" / "README.md").read_text("utf-8")
    assert os.access(REPOSITORY / full, os.X_OK)


def requirements():
    """What users install, by name: the dependencies, and those of each extra but dev."""
    extras = {name: lines for name, lines in PROJECT["project"]["optional-dependencies"].items() if name != "dev"}
    lines = [*PROJECT["project"]["dependencies"], *(line for lines in extras.values() for line in lines)]
    return {one.name: one.specifier for one in map(Requirement, lines) if one.name != PROJECT["project"]["name"]}


def test_the_lowest_versions_are_those_of_the_project():
    said = subprocess.run([sys.executable, REPOSITORY / ".ci" / "lowest"], capture_output=True, text=True, check=True).stdout
    lowest = dict(line.split("==") for line in said.splitlines())
    assert lowest == {
        name: bound.version for name, bounds in requirements().items() for bound in bounds if bound.operator == ">="
    }
    assert lowest.keys() == requirements().keys()


def test_the_versions_that_the_tests_were_run_with_are_allowed():
    lines = [line for line in (REPOSITORY / ".constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for name, bounds in requirements().items():
        assert pinned[canonicalize_name(name)] in bounds, name


def test_the_picture_shows_every_room_in_the_order_of_the_floors():
    (picture,) = re.findall(r"^```text\n(people .*?)^```", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    shown = [line[17:].split()[0] for line in picture.splitlines() if line.strip()]
    rooms = {path.parent.name for path in REPOSITORY.glob("runner/*/__init__.py")} | {"flows"}
    assert sorted(shown) == sorted(rooms)
    (floors,) = [contract["layers"] for contract in PROJECT["tool"]["importlinter"]["contracts"] if contract["type"] == "layers"]
    height = {room.strip().removeprefix("runner."): floor for floor, layer in enumerate(floors) for room in layer.split("|")}
    assert [height[room] for room in shown] == sorted(height[room] for room in shown)


def test_the_doors_are_those_of_the_contract():
    (contract,) = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["name"].startswith("One door each")]
    allowed = {tuple(line.split(" -> ")) for line in contract["ignore_imports"]}
    doors = re.findall(r"^\| ([a-z0-9, ]+) \| (`.+`) \|$", ARCHITECTURE, re.MULTILINE)
    assert len(doors) > 7
    for libraries, paths in doors:
        for path in re.findall(r"`([^`]+)`", paths):
            module = ".".join(Path(path).with_suffix("").parts) + (".*" if path.endswith("/") else "")
            assert {(module, library) for library in libraries.split(", ")} <= allowed, path


def test_every_decision_is_listed():
    listed = re.findall(r"\(decisions/([^)]+)\)", ARCHITECTURE)
    assert listed == sorted(path.name for path in (REPOSITORY / ".github/decisions").iterdir())


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / ".github/CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (runner.__version__, PROJECT["project"]["license"])
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


@pytest.mark.parametrize("readme", ["# No command\n", "```sh\nfirst\n```\n", "```sh\nfirst\n```\n\n```sh\n```\n"])
def test_a_readme_without_its_commands_fails_the_check(readme, tmp_path):
    """An empty command passes in bash. The tools that the check could install others with are not there."""
    repository, tools = tmp_path / "repository", tmp_path / "tools"
    (repository / ".ci").mkdir(parents=True)
    tools.mkdir()
    shutil.copy(REPOSITORY / ".ci" / "run", repository / ".ci" / "run")
    (repository / "README.md").write_text(readme)
    for name in ("awk", "bash", "dirname", "git", "mktemp", "rm", "tail"):
        (tools / name).symlink_to(shutil.which(name))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", repository]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *command], check=True)
    done = subprocess.run(
        ["bash", ".ci/run"],
        cwd=repository,
        env={"PATH": str(tools), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"README.md has no sh block [12], or an empty one\n", done.stderr)
