"""Experiments as Prefect flows: quiet, in their true state, with nothing left behind."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

import flows.orchestrate
from flows.servers import kept as kept_server
from runner.errors import LaunchError, OrchestratorError
from runner.system import processes
from tests.flows.api import Api
from tests.flows.conftest import copy, without_server
from tests.flows.play_fake import FakeExperiment
from tests.support.clock import PATIENCE_S, wait_until
from tests.support.command import REPOSITORY

pytestmark = pytest.mark.prefect


@dataclass
class PrivateRuns:
    """What fresh processes with private servers did, one after the other, on one OSTINATO_HOME."""

    home: Path
    ok: subprocess.CompletedProcess
    ok_folder: Path
    interrupted: int
    killed_url: str


def start(folder, plays):
    command = [sys.executable, "-m", "tests.flows.play_fake", str(folder), plays]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_and(signum, folder):
    """Start a run that waits, and signal it when its server knows that it plays. Returns its exit code and the server's URL."""
    with start(folder, "wait") as run:
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


@pytest.fixture(scope="module")
def private_runs(empty_home, tmp_path_factory):
    base = tmp_path_factory.mktemp("private")
    copy(empty_home, base / "home")
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_server(monkeypatch, base / "home")
        with start(base / "ok-run", "ok") as run:
            out, err = run.communicate(timeout=PATIENCE_S)
        ok = subprocess.CompletedProcess(run.args, run.returncode, out, err)
        code, _ = wait_and(signal.SIGINT, base / "interrupted-run")
        _, killed = wait_and(signal.SIGKILL, base / "killed-run")
    return PrivateRuns(base / "home", ok, base / "ok-run", code, killed)


@pytest.fixture(scope="module")
def history(private_runs):
    """The API of a kept server that shows what private servers have recorded."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_server(monkeypatch, private_runs.home)
        yield Api(kept_server.start(processes.free_port()).api_url)
        kept_server.stop()


@pytest.fixture
def play(clean, kept, monkeypatch, register):
    """Play an experiment on the kept server, by PREFECT_API_URL, in this process."""
    monkeypatch.setenv("PREFECT_API_URL", kept.api_url)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # not for this machine
    monkeypatch.setattr(flows.orchestrate, "CANCEL_POLL_S", 0.1)
    lines = []

    def start(experiment):
        register(experiment)
        return asyncio.ensure_future(flows.orchestrate.run_experiment(experiment, notify=lines.append))

    start.lines = lines
    return start


def test_a_private_run_is_quiet(private_runs):
    assert private_runs.ok.returncode == 0
    assert private_runs.ok.stderr == ""
    (line,) = private_runs.ok.stdout.splitlines()
    assert line.startswith("Prefect: http://127.0.0.1:")
    assert "Beginning flow run" in (private_runs.ok_folder / "run.log").read_text()


def test_a_private_run_is_in_the_history_in_its_true_state(private_runs, history):
    run = history.flow_run("ok-run")
    assert run["state_type"] == "COMPLETED"
    assert history.task_states("ok-run") == dict.fromkeys(("launch", "play", "kill", "summarise"), "COMPLETED")
    assert run["parameters"] == {"folder": str(private_runs.ok_folder), "overrides": ["sampling.temperature=0.5"]}
    assert set(run["tags"]) == {"ostinato", "Demo.one"}
    assert run["start_time"] == run["expected_start_time"] < run["created"]  # rows were asked before the server was up


def test_the_summary_is_a_table_artifact(history):
    run = history.flow_run("ok-run")
    (artifact,) = history.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert (artifact["key"], artifact["type"]) == ("summary-demo-one", "table")
    assert json.loads(artifact["data"]) == [{"metric": "exact", "mean": 0.5, "stderr": 0.1, "n": 4}]


def test_ctrl_c_leaves_a_private_run_cancelled(private_runs, history):
    assert private_runs.interrupted == 130
    assert history.flow_run("interrupted-run")["state_type"] == "CANCELLED"
    assert history.task_states("interrupted-run") == {"launch": "COMPLETED", "play": "CRASHED", "kill": "COMPLETED"}


def test_kill_9_leaves_no_server_behind(private_runs):
    def refused():
        try:
            urllib.request.urlopen(f"{private_runs.killed_url}/api/health", timeout=5).close()
        except urllib.error.URLError:
            return True
        return False

    wait_until(refused, "the end of the private server")


def test_kill_9_leaves_its_flow_run_crashed(history):
    assert history.flow_run("killed-run")["state_type"] == "CRASHED"
    assert history.task_states("killed-run") == {"launch": "COMPLETED", "play": "CRASHED"}


async def test_the_server_of_prefect_api_url_is_used(play, api, tmp_path):
    experiment = FakeExperiment(tmp_path / "named-run")
    await play(experiment)
    assert experiment.done == ["launch", "play", "kill", "summarise"]
    assert "PREFECT_API_URL" in play.lines[0]
    assert api.flow_run("named-run")["state_type"] == "COMPLETED"
    assert set(api.settled("named-run", 4).values()) == {"COMPLETED"}


async def test_the_kept_server_is_used_when_none_is_named(play, api, tmp_path, monkeypatch, kept_home):
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("OSTINATO_HOME", str(kept_home))
    experiment = FakeExperiment(tmp_path / "kept-run")
    experiment.needs_launch = False
    await play(experiment)
    assert "ostinato server start" in play.lines[0]
    assert set(api.settled("kept-run", 2)) == {"play", "summarise"}


async def test_the_caller_gets_what_play_raises(play, api, tmp_path):
    boom = ValueError("boom")
    experiment = FakeExperiment(tmp_path / "failed-run", plays=boom)
    with pytest.raises(ValueError, match="boom") as caught:
        await play(experiment)
    assert caught.value is boom
    assert api.flow_run("failed-run")["state_type"] == "FAILED"
    assert api.settled("failed-run", 3) == {"launch": "COMPLETED", "play": "FAILED", "kill": "COMPLETED"}


async def test_a_failed_launch_is_retried_once(play, api, tmp_path):
    experiment = FakeExperiment(tmp_path / "unlaunched-run", launches=LaunchError("no such program"))
    with pytest.raises(LaunchError, match="no such program"):
        await play(experiment)
    assert experiment.done == ["launch", "launch", "kill"]
    assert api.flow_run("unlaunched-run")["state_type"] == "FAILED"
    assert api.settled("unlaunched-run", 2) == {"launch": "FAILED", "kill": "COMPLETED"}


async def test_the_caller_can_cancel(play, api, tmp_path):
    experiment = FakeExperiment(tmp_path / "cancelled-run", plays="wait")
    running = play(experiment)
    await asyncio.to_thread(wait_until, lambda: "play" in experiment.done, "the play stage")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert api.flow_run("cancelled-run")["state_type"] == "CANCELLED"
    assert api.settled("cancelled-run", 3) == {"launch": "COMPLETED", "play": "CRASHED", "kill": "COMPLETED"}


async def test_a_run_can_be_cancelled_in_prefect(play, api, tmp_path):
    experiment = FakeExperiment(tmp_path / "stopped-run", plays="wait")
    running = play(experiment)
    await asyncio.to_thread(wait_until, lambda: "play" in experiment.done, "the play stage")
    run = await asyncio.to_thread(api.flow_run, "stopped-run")
    cancelling = {"state": {"type": "CANCELLING"}}
    await asyncio.to_thread(api.post, f"flow_runs/{run['id']}/set_state", cancelling)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "cancelled in Prefect" in play.lines[-1]
    assert api.flow_run("stopped-run")["state_type"] == "CANCELLED"


async def test_a_run_leaves_the_process_as_it_was(play, tmp_path):
    def process():
        loggers = [logging.getLogger(name) for name in (None, "prefect", "prefect.flow_runs")]
        return dict(os.environ), [(list(log.handlers), log.level, log.propagate) for log in loggers], logging.raiseExceptions

    before = process()
    with pytest.raises(KeyError):
        await play(FakeExperiment(tmp_path / "tidy-run", plays=KeyError("row")))
    assert process() == before


async def test_a_server_that_does_not_answer_is_an_error(clean, monkeypatch, register, tmp_path):
    monkeypatch.setenv("PREFECT_API_URL", "http://user:hunter2@127.0.0.1:9/api")
    experiment = FakeExperiment(tmp_path / "run")
    register(experiment)
    with pytest.raises(OrchestratorError) as caught:
        await flows.orchestrate.run_experiment(experiment, notify=print)
    message = str(caught.value)
    assert "127.0.0.1:9/api does not answer" in message
    assert "PREFECT_API_URL" in message
    assert "execution.orchestrator=none" in message
    assert "hunter2" not in message
    assert experiment.done == []
