"""The server that `ostinato server start` keeps, once for all tests that ask for it, on a history of its own."""

import os
import sqlite3
import sys
from contextlib import closing

import pytest

from flows import connection
from flows.servers import kept as kept_server
from flows.servers import launch
from runner.system import processes
from tests.flows.api import Api
from tests.flows.play_fake import runner_experiment
from tests.support.clock import PATIENCE_S


def without_server(monkeypatch, home):
    """Name no server, and set OSTINATO_HOME to a folder where none is kept. Servers may take their time."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OSTINATO_HOME", str(home))
    monkeypatch.setenv("PREFECT_HOME", str(home.parent / "user-prefect"))
    monkeypatch.setattr(launch, "START_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(connection, "REACH_TIMEOUT_S", PATIENCE_S)


@pytest.fixture(scope="session")
def kept_home(tmp_path_factory):
    """The OSTINATO_HOME of `kept`."""
    return tmp_path_factory.mktemp("kept") / "home"


@pytest.fixture(scope="session")
def kept(kept_home):
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_server(monkeypatch, kept_home)
        server = kept_server.start(processes.free_port())
        copy(kept_home, kept_home.parent / "empty")
        yield server
        kept_server.stop()


def copy(home, other):
    """Copy the history of an OSTINATO_HOME to another. A server that finds one need not create it, which takes ten seconds."""
    for folder in (other, other / "prefect"):
        folder.mkdir(mode=0o700)
    here, there = (sqlite3.connect(place / "prefect" / "prefect.db") for place in (home, other))
    with closing(here), closing(there):
        here.backup(there)


@pytest.fixture(scope="session")
def empty_home(kept, kept_home):
    """An OSTINATO_HOME whose history is empty."""
    return kept_home.parent / "empty"


@pytest.fixture
def api(kept):
    return Api(kept.api_url)


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No server named, none kept, and a home of one's own."""
    without_server(monkeypatch, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def register(monkeypatch):
    """Have the flow find these experiments."""

    def known(*experiments):
        monkeypatch.setitem(sys.modules, "runner.experiment.experiment", runner_experiment(*experiments))

    return known
