"""The package as people install it: the command and its configs are found from a tree, an editable install and a wheel."""

import email
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.command import REPOSITORY

pytest.importorskip("hatchling", reason="building the package needs hatchling")

TREE = ("runner", "flows", "conf", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore")
PLAY = ["run", "model=fake", "execution.orchestrator=none", "data.limit=2", "--json"]


def checked(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A copy of what is packaged, with what a developer's tree may hold besides."""
    folder = tmp_path_factory.mktemp("tree")
    for name in TREE:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / "conf/local").mkdir(exist_ok=True)
    (folder / "conf/local/default.yaml").write_text("# @package _global_\nname: private\n")
    (folder / "tests").mkdir()
    (folder / "tests/test_x.py").write_text("")
    return folder


@pytest.fixture(scope="session")
def wheel(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    checked([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, tree])
    (built,) = out.glob("ostinato-*-py3-none-any.whl")
    return built


def installed(folder, *what):
    """A virtual environment with the package in it, which sees the other packages of this one."""
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    packages = Path(checked([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    checked([*pip, "--ignore-installed", *what])
    return folder


def plays(command, in_tmp):
    """The command finds its shipped configs, and the data in them, and plays."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = json.loads(checked([*command, *PLAY], cwd=in_tmp, env=environment))
    assert (result["status"], result["ok"]) == ("complete", 2)
    assert "<style>:root" in (Path(result["run"]) / "report.html").read_text()


def home_of(python, in_tmp, **environment):
    """The folder of shipped configs that this interpreter finds."""
    code = "import runner.system.paths, flows; print(runner.system.paths.shipped_conf())"
    return Path(checked([python, "-c", code], cwd=in_tmp, env={**os.environ, **environment}).strip())


def test_the_wheel_holds_the_packages_and_the_configs(wheel, tree):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        facts = next(name for name in names if name.endswith("dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(facts))
        points = archive.read(facts.replace("METADATA", "entry_points.txt")).decode()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"runner", "flows", "ostinato"}
    shipped = {f"runner/{path.relative_to(tree)}" for path in (tree / "conf").rglob("*.*") if "local" not in path.parts}
    assert {name for name in names if name.startswith("runner/conf/") and "/local/" not in name} == shipped
    assert {
        "runner/conf/config.yaml",
        "runner/conf/finetune/tickets.jsonl",
        "runner/reports/page.js",
        "runner/py.typed",
        "runner/cli/__init__.py",
        "flows/orchestrate.py",
        "flows/logging.yml",
    } <= names
    assert {"runner/reports/page.css", "runner/reports/page.js"} <= names
    assert not [name for name in names if "test" in name or "__pycache__" in name]
    assert (metadata["Name"], metadata["License-Expression"]) == ("ostinato", "Apache-2.0")
    assert "ostinato = runner.__main__:main" in points


def test_the_wheel_leaves_out_private_settings(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "/conf/local/" in name]


def test_an_installed_wheel_finds_its_configs(wheel, tmp_path, in_tmp):
    home = installed(tmp_path / "venv", wheel)
    assert home_of(home / "bin/python", in_tmp).is_relative_to(home)
    plays([home / "bin/ostinato"], in_tmp)
    plays([home / "bin/python", "-m", "runner"], in_tmp)


def test_an_editable_install_finds_the_configs_of_the_tree(tree, tmp_path, in_tmp):
    home = installed(tmp_path / "venv", "-e", tree)
    assert home_of(home / "bin/python", in_tmp) == tree / "conf"
    plays([home / "bin/ostinato"], in_tmp)


def test_a_source_tree_finds_its_configs(in_tmp):
    assert home_of(sys.executable, in_tmp, PYTHONPATH=str(REPOSITORY)) == REPOSITORY / "conf"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = json.loads(checked([sys.executable, "-m", "runner", *PLAY], cwd=in_tmp, env=environment))
    assert result["status"] == "complete"
