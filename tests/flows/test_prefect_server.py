"""Which server a run uses, and the life of those that Ostinato starts."""

import argparse
import json
import socket
import sys
import urllib.request

import pytest

from flows.servers import cli, kept, launch
from flows.servers.choice import ServerChoice, resolve
from flows.servers.databases import History
from flows.servers.private import PrivateServer
from runner.errors import OrchestratorError
from runner.system import processes
from tests.flows.conftest import copy


def ask(*words):
    parser = argparse.ArgumentParser()
    cli.configure(parser)
    return cli.main(parser.parse_args(words))


def test_the_environment_names_the_server(clean, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://there:4200/api/")
    assert resolve() == ServerChoice("named", "http://there:4200/api", "the environment variable PREFECT_API_URL")


def test_the_active_profile_names_the_server(clean, monkeypatch, tmp_path):
    file = tmp_path / "profiles.toml"
    file.write_text('active = "a"\n[profiles.a]\n[profiles.b]\nPREFECT_API_URL = "http://there/api"\n')
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert resolve().kind == "private"
    monkeypatch.setenv("PREFECT_PROFILE", "b")
    choice = resolve()
    assert (choice.kind, choice.api_url) == ("named", "http://there/api")
    assert "'b'" in choice.source
    assert str(file) in choice.source


@pytest.mark.parametrize("profiles", ["not toml [", "active = 3", 'active = "gone"\n[profiles]'])
def test_profiles_without_a_server_are_ignored(clean, monkeypatch, tmp_path, profiles):
    (tmp_path / "profiles.toml").write_text(profiles)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert resolve().kind == "private"


@pytest.mark.parametrize(
    "state", ["", "{}", "[]", '{"version": 99}', '{"version": 1, "pid": 1, "started": 0.5, "port": 1, "log": "x"}']
)
def test_a_state_file_of_no_living_server_counts_as_none(clean, state):
    (clean / "prefect").mkdir(parents=True)
    (clean / "prefect" / "server.json").write_text(state)
    assert kept.status() is None
    assert resolve().kind == "private"


def test_looking_for_a_server_writes_nothing(clean):
    resolve()
    assert ask("status") == 1
    assert not clean.exists()


def test_concurrent_runs_write_two_databases(clean):
    first = History.take_any()
    second = History.take_any()
    assert [first.database.name, second.database.name] == ["prefect.db", "prefect-2.db"]
    first.release()
    third = History.take_any()
    assert third.database.name == "prefect.db"
    second.release()
    third.release()


def test_start_is_refused_while_a_run_records(clean):
    history = History.take()
    history.describe("A run (pid 42)")
    with pytest.raises(OrchestratorError, match=r"A run \(pid 42\) is recording .*\n.*has ended"):
        ask("start")
    history.release()


def test_start_on_a_taken_port_is_refused(clean):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OrchestratorError, match=rf"Port {port} is taken .*--port N"):
            ask("start", "--port", str(port))


@pytest.mark.parametrize("port", ["0", "70000", "http"])
def test_invalid_ports_are_refused(port, capsys):
    with pytest.raises(SystemExit) as stopped:
        ask("start", "--port", port)
    assert stopped.value.code == 2
    assert f"'{port}' is not a port" in capsys.readouterr().err


async def test_a_server_that_ends_at_once_shows_its_log(clean, monkeypatch):
    monkeypatch.setattr(launch, "_command", lambda _port: [sys.executable, "-c", "raise SystemExit('out of luck')"])
    private = PrivateServer()
    with pytest.raises(OrchestratorError, match=r"ended instead of starting(.|\n)*out of luck"):
        await private.ready()
    private.stop()
    private.stop()
    with pytest.raises(OrchestratorError, match="out of luck"):
        kept.start(processes.free_port())
    assert kept.status() is None


def test_a_home_that_cannot_be_written_is_an_error(clean, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "file"))
    with pytest.raises(OrchestratorError, match="Set OSTINATO_HOME"):
        PrivateServer()


@pytest.mark.prefect
def test_a_kept_server_starts_is_found_and_stops(clean, empty_home, capsys):
    copy(empty_home, clean)
    port = processes.free_port()
    assert ask("start", "--port", str(port), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["ui"] == f"http://127.0.0.1:{port}"
    state = clean / "prefect" / "server.json"
    assert state.stat().st_mode & 0o777 == 0o600
    assert json.loads(state.read_text())["version"] == 1

    with urllib.request.urlopen(shown["ui"]) as page:
        assert b"<!DOCTYPE html>" in page.read()
    with urllib.request.urlopen(f"{shown['ui']}/ui-settings") as settings:
        assert json.load(settings)["api_url"] == shown["api"]

    assert ask("start") == 0  # again, though on another port: the one that runs
    assert f"on port {port}" in capsys.readouterr().err
    assert ask("status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == shown
    assert resolve() == ServerChoice("kept", shown["api"], "`ostinato server start`")

    assert ask("stop") == 0
    assert processes.process_started(shown["pid"]) is None
    assert kept.status() is None
    assert ask("stop", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"stopped": False}
