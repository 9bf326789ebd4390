"""`.env`: what the environment lacks is read from it, and nothing of it is written."""

import json
import os
from pathlib import Path

import pytest

from runner.cli import main
from tests.support.server import Server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path


def test_a_key_in_it_is_sent_and_never_written(folder, capsys):
    key = "sk-fromadotenvfile4242x9Qz"
    Path(".env").write_text(f"# keys\nMY_KEY={key}\nexport OTHER='${{NOT}} expanded'\nEMPTY\n")
    with Server() as server:
        words = ["model=server", "model.name=m", f"model.api_base={server.url}", "model.api_key_env=MY_KEY", "prompt=default"]
        words += ["execution.orchestrator=none", "scoring=none", "data=inline", "+data.rows=[{question: hi}]", "cache.dir=cache"]
        assert main(["run", *words, "--json"]) == 0
    assert server.last.headers["authorization"] == f"Bearer {key}"
    assert os.environ["OTHER"] == "${NOT} expanded"
    assert json.loads(capsys.readouterr().out)["status"] == "complete"
    written = [file for file in folder.rglob("*") if file.is_file() and file.name != ".env"]
    assert written
    assert all(key.encode() not in file.read_bytes() for file in written)


def test_the_environment_goes_before_it(folder, capsys):
    os.environ["OSTINATO_MINE"] = "environment"
    Path(".env").write_text("OSTINATO_MINE=file\nOSTINATO_THEIRS=file\n")
    assert main(["ls"]) == 0
    assert (os.environ["OSTINATO_MINE"], os.environ["OSTINATO_THEIRS"]) == ("environment", "file")
