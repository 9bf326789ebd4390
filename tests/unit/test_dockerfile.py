"""docs/Dockerfile, which no test builds: what it copies is there and enough, what it installs exists, and it holds no secret."""

import re
import tomllib
from pathlib import Path

from runner.secrets import holds_secret, names_a_secret

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "Dockerfile"
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = WHOLE["project"]


def instructions():
    """The instructions of the file: name and the rest, without comments, continued lines in one."""
    lines = [line for line in FILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def copied():
    """What it copies from the repository: sources by their place."""
    words = [rest.split() for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    return [(source, places[-1]) for (*places,) in words for source in places[:-1]]


def test_it_copies_what_a_wheel_is_built_from():
    """As pyproject.toml has it; that such a wheel works is shown by `e2e/test_package.py`."""
    needed = {"pyproject.toml", ".gitignore", ".constraints.txt", PROJECT["readme"], *PROJECT["license-files"]}
    assert {source for source, _ in copied()} == {*needed, *WHOLE["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]}


def test_what_it_copies_is_there():
    for source, _ in copied():
        assert (ROOT / source).exists(), source
    froms = [rest.split() for name, rest in instructions() if name == "FROM"]
    stages = {words[2] for words in froms if len(words) > 2}
    for name, rest in instructions():
        if name == "COPY" and (found := re.search(r"--from=(\S+)", rest)):
            assert found[1] in stages
    least = tuple(int(part) for part in PROJECT["requires-python"].removeprefix(">=").split("."))
    for image, *_ in froms:
        assert tuple(int(part) for part in re.search(r"python:(\d+\.\d+)", image)[1].split(".")) >= least
        assert f"Programming Language :: Python :: {re.search(r'python:([0-9.]+)', image)[1]}" in PROJECT["classifiers"]


def test_a_worker_says_what_runs_and_as_nobody_special():
    names = [name for name, _ in instructions()]
    assert "ENTRYPOINT" not in names
    assert "CMD" not in names
    assert [rest for name, rest in instructions() if name == "USER"] == ["ostinato"]
    volumes = [rest for name, rest in instructions() if name == "VOLUME"]
    (environment,) = [dict(pair.split("=") for pair in rest.split()) for name, rest in instructions() if name == "ENV"]
    assert volumes == [environment["OSTINATO_HOME"]]


def test_it_holds_no_secret_and_no_extra_that_is_not_one():
    text = FILE.read_text()
    assert not holds_secret(text)
    for name, rest in instructions():
        if name in ("ENV", "ARG"):
            assert not [pair for pair in rest.split() if names_a_secret(pair.partition("=")[0])]
    for extras in re.findall(r'such as "([\w,]+)"', text):
        assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
