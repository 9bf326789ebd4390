"""One history for the whole suite: private runs write it first, then a kept server shows it over its REST API."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.servers import kept as kept_server
from runner.system import processes
from tests.flows.api import Api
from tests.flows.play_fake import runner_experiment
from tests.support.clock import PATIENCE_S, wait_until


@dataclass
class PrivateRuns:
    """What fresh processes with private servers did, one after the other, on one OSTINATO_HOME."""

    home: Path
    copy: Path
    ok: subprocess.CompletedProcess
    ok_folder: Path
    interrupted: int
    killed_url: str


def _clean(monkeypatch, home):
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OSTINATO_HOME", str(home))
    monkeypatch.setenv("PREFECT_HOME", str(home.parent / "user-prefect"))


def _start(folder, plays):
    command = [sys.executable, str(Path(__file__).with_name("play_fake.py")), str(folder), plays]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_and(signum, folder):
    """Start a run that waits, and signal it when its server knows that it plays; its exit code and the server's address."""
    with _start(folder, "wait") as run:
        try:
            url = run.stdout.readline().split()[1]
            api = Api(f"{url}/api")
            wait_until(lambda: api.task_states(folder.name).get("play") == "RUNNING", "the play stage")
            run.send_signal(signum)
            _, err = run.communicate(timeout=PATIENCE_S)
        finally:
            run.kill()
    assert err == ""
    return run.returncode, url


@pytest.fixture(scope="session")
def private_runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("prefect")
    home, copy = base / "home", base / "copy"
    with pytest.MonkeyPatch.context() as monkeypatch:
        _clean(monkeypatch, home)
        with _start(base / "ok-run", "ok") as run:
            out, err = run.communicate(timeout=PATIENCE_S)
        ok = subprocess.CompletedProcess(run.args, run.returncode, out, err)
        shutil.copytree(home, copy)
        code, _ = _wait_and(signal.SIGINT, base / "interrupted-run")
        _, killed = _wait_and(signal.SIGKILL, base / "killed-run")
    return PrivateRuns(home, copy, ok, base / "ok-run", code, killed)


@pytest.fixture(scope="session")
def kept(private_runs):
    with pytest.MonkeyPatch.context() as monkeypatch:
        _clean(monkeypatch, private_runs.home)
        yield kept_server.start(processes.free_port())
        kept_server.stop()


@pytest.fixture
def api(kept):
    return Api(kept.api_url)


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No server named, none kept, and a home of one's own."""
    _clean(monkeypatch, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def register(monkeypatch):
    """Have the flow find these experiments."""

    def known(*experiments):
        monkeypatch.setitem(sys.modules, "runner.experiment.experiment", runner_experiment(*experiments))

    return known
