"""Schedules as a test sees them: a folder that has some, the server that knows them, the command that plays them."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from contextlib import contextmanager

import pytest

import runner.cli
from flows import connection
from flows.schedules import deployments
from flows.servers import kept, launch
from runner.records import list_runs
from runner.system import processes
from tests.flows.api import Api
from tests.support.clock import PATIENCE_S, wait_until
from tests.support.command import Running
from tests.support.server import Reply, Server

FAKE = ["model=fake", "data.limit=2", "cache.mode=off"]
NEVER = "schedule.cron='0 3 1 1 *'"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
SECRETS = {"THEIR_KEY": "kx7Pq2mB9vTz4LwR8sNd", "THEIR_HOOK": "w4GhY6tUe1JcXz0QaKoM"}


def schedule(*words):
    """Run `ostinato schedule ...` in this process, which spares its imports. Returns its JSON."""
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr(deployments, "PATIENCE_S", PATIENCE_S)
        patch.setattr(connection, "REACH_TIMEOUT_S", PATIENCE_S)
        patch.setattr("builtins.print", lambda *text, **_: said.extend(text))
        assert runner.cli.main(["schedule", *words, "--json"]) == 0, said
    return json.loads(said[-1])


def listed(name):
    """Return what `ostinato schedule ls` says of one schedule."""
    (known,) = [known for known in schedule("ls")["schedules"] if known["name"] == name]
    return known


def pause(name):
    """Pause a schedule until nothing of it is due: a scheduler that had read it before may still write some of its runs."""

    def paused():
        schedule("pause", name)
        return listed(name)["next"] is None

    wait_until(paused, f"the pause of {name}")


class Gate:
    """A model server that answers only while the gate is open. Runs that ask it last as long as a test wants.

    Attributes:
        model: the overrides that ask it one question.
    """

    def __init__(self, server):
        self._server, self._opened = server, threading.Event()
        server.otherwise = self._answer
        name = ["model=server", "model.name=test", f"model.api_base={server.url}"]
        self.model = [*name, f"limits.timeout_s={PATIENCE_S}", "data.limit=1", "cache.mode=off", NEVER]

    def asked(self, times=1):
        """Wait until so many questions have arrived."""
        wait_until(lambda: self._server.count >= times, f"question {times}")

    def open(self):
        self._opened.set()

    def close(self):
        self._opened.clear()

    def _answer(self, _call):
        self._opened.wait(PATIENCE_S)
        return Reply()


@contextmanager
def gated():
    with Server() as server:
        gate = Gate(server)
        try:
            yield gate
        finally:
            gate.open()


class Clock:
    """The schedules of one folder, the server that knows them and the worker that plays them."""

    def __init__(self, server, folder, worker=None):
        self.server, self.folder, self.worker = server, folder, worker
        self.api = Api(server.api_url)

    def runs(self, name):
        found = self.api.post("flow_runs/filter", {"deployments": {"name": {"any_": [name]}}})
        return sorted(found, key=lambda run: run["expected_start_time"])

    def run(self, flow_run):
        (found,) = self.api.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
        return found

    def state(self, flow_run, *wanted):
        """Wait until the state of a flow run is one of those wanted. Returns it."""
        return wait_until(lambda: (state := self.run(flow_run)["state"])["type"] in wanted and state, f"{wanted} of {flow_run}")

    def records(self, name):
        return [run for run in list_runs(self.folder / "runs") if run.manifest().get("schedule", {}).get("name") == name]

    def complete(self, name):
        return [run for run in self.records(name) if run.manifest()["status"] == "complete"]

    def deployment(self, name):
        (found,) = self.api.post("deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        return found


def environment(api_url, home, folder):
    """Return the environment that the commands of a test run with."""
    return {
        "OSTINATO_HOME": str(home),
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(folder / "user-prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        **SECRETS,
    }


@contextmanager
def standing(folder, given):
    """Work in the folder of the schedules, with the environment of their commands."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        yield


class KeptServer:
    """The server that `ostinato server start` keeps, on SQLite."""

    def __init__(self, running, home):
        self.api_url, self.home, self._port = running.api_url, home, running.port

    def stop(self):
        assert kept.stop()

    def start(self):
        kept.start(self._port)

    def everything(self):
        """Return all that the database holds, as text."""
        with sqlite3.connect(self.home / "prefect" / "prefect.db") as database:
            return "\n".join(database.iterdump())


class OwnServer:
    """A server that somebody had before Ostinato: `prefect server start` on a PostgreSQL cluster."""

    def __init__(self, cluster, folder):
        self.home, self._cluster, self._port = folder / "home", cluster, processes.free_port()
        self.api_url = f"http://127.0.0.1:{self._port}/api"
        self._log = folder / "server.log"
        self._environment = {
            "HOME": str(folder),
            "PREFECT_HOME": str(folder / "their-prefect"),
            "PREFECT_API_DATABASE_CONNECTION_URL": cluster.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
            "DO_NOT_TRACK": "1",
        }

    def start(self):
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._port)]
        self._process = processes.start(command, log=self._log, env=self._environment)
        wait_until(self._answers, "`prefect server start`")

    def stop(self):
        self._process.stop(processes.GRACE_S)

    def everything(self):
        """Return all that the database holds, as text."""
        return self._cluster.dump()

    def _answers(self):
        assert self._process.alive(), self._process.log_tail()
        return launch.answers(self._port)


@contextmanager
def serving(clock, **more):
    """Run `ostinato serve` as the worker of a clock."""
    with Running("serve", **more) as clock.worker:
        yield clock
