"""A run that is stopped keeps what was finished, says how to go on, and asks nothing twice when it does."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from runner.experiment.run import resume
from tests.support.clock import PATIENCE_S, wait_until
from tests.support.command import Running, ostinato
from tests.support.server import Hang, Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

QUIET = ["execution.orchestrator=none"]
ROWS = 12


@pytest.fixture
def questions():
    rows = [{"id": f"r{n}", "question": f"What is {n}?", "answer": "ok"} for n in range(ROWS)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "data=jsonl",
        "data.path=rows.jsonl",
        "data.id=id",
        "data.target=answer",
        "prompt=default",
        "limits.max_concurrency=3",
    ]


def finished():
    """How many samples the only run has recorded."""
    return sum(file.read_bytes().count(b"\n") for file in Path("runs").glob("rows/2*/samples.jsonl"))


def ctrl_c(running):
    """Press it once, and wait until it was heard."""
    running.signal(signal.SIGINT)
    running.says("stopping: what is in flight is finished and kept")


def test_ctrl_c_finishes_requests_in_flight(questions):
    gate = threading.Event()

    def held(_call):
        gate.wait(PATIENCE_S)
        return Reply()

    with Server(held) as server:
        with Running("run", "model=server", f"model.api_base={server.url}", *QUIET, *questions, "--json") as running:
            server.wait_for(3)
            ctrl_c(running)
            assert finished() == 0
            gate.set()
            done = running.wait()
        assert done.code == 130
        assert (done.json["status"], done.json["ok"], done.json["owed"], done.json["errors"]) == ("interrupted", 3, ROWS - 3, 0)
        assert finished() == server.count == 3
        (folder,) = Path("runs/rows").glob("2*")
        assert done.err.splitlines()[-1] == f"9 rows are still owed; resume with: ostinato resume {folder}"

        done = ostinato("resume", str(folder), "--json")
        assert (done.code, done.json["status"], done.json["ok"], done.json["requests"]) == (0, "complete", ROWS, ROWS)
        assert done.json["run"] == str(folder.absolute())
        assert set(Counter(call.question for call in server.calls).values()) == {1}
        assert (server.count, finished()) == (ROWS, ROWS)


def test_a_second_ctrl_c_stops_immediately(questions):
    with Server() as server:
        server.script(Reply(), Reply(), Hang(), Hang(), Hang())
        with Running("run", "model=server", f"model.api_base={server.url}", *QUIET, *questions) as running:
            server.wait_for(5)
            wait_until(lambda: finished() == 2, "two rows are finished")
            ctrl_c(running)
            running.signal(signal.SIGINT)
            done = running.wait()
        assert done.code == 130
        assert "10 rows are still owed; resume with: ostinato resume runs/rows/" in done.err
        assert (finished(), server.count) == (2, 5)
        (folder,) = Path("runs/rows").glob("2*")
        summary = resume(folder).summary
        assert (summary.status, summary.ok, server.count) == ("complete", ROWS, 5 + 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_finished_rows(questions, number):
    with Running("run", "model=fake", "model.latency_s=0.3", *QUIET, *questions) as running:
        wait_until(lambda: finished() >= 3, "some rows are finished")
        running.signal(number)
        done = running.wait()
    assert done.code == 130
    assert "rows: interrupted" in done.out
    count = finished()
    assert 3 <= count < ROWS
    assert f"{ROWS - count} rows are still owed; resume with: ostinato resume runs/rows/" in done.err
    assert ostinato("ls", "--json").json["runs"][0]["status"] == "interrupted"
    done = ostinato("resume", "--json")
    assert (done.code, done.json["ok"], done.json["requests"], finished()) == (0, ROWS, ROWS, ROWS)


def test_a_killed_run_keeps_finished_rows(questions):
    with Running("run", "model=fake", "model.latency_s=0.3", "cache.mode=off", *QUIET, *questions) as running:
        wait_until(lambda: finished() >= 3, "some rows are finished")
        running.signal(signal.SIGKILL)
        assert running.wait().code == -signal.SIGKILL
    assert ostinato("ls", "--json").json["runs"][0]["status"] == "running"
    assert "no summary yet: it is in progress or was killed; resume with: ostinato resume runs/rows/" in ostinato("show").out
    done = ostinato("resume", "--json")
    assert (done.code, done.json["ok"], done.json["rows"], finished()) == (0, ROWS, ROWS, ROWS)


def test_ctrl_c_ends_waits_and_sends_nothing(questions):
    with Server(Status(503)) as server:
        with Running("run", "model=server", f"model.api_base={server.url}", *QUIET, *questions, "--json") as running:
            server.wait_for(4)  # the first attempts have failed, and wait to be tried again
            ctrl_c(running)
            done = running.wait()
            sent = server.count
        assert (done.code, done.json["status"], done.json["owed"]) == (130, "interrupted", ROWS)
        assert server.count == sent


def test_ctrl_c_does_not_wait_for_a_starting_server(questions):
    """A model server that takes a minute to come up: nothing is in flight, so nothing is waited for."""
    model = ["model=vllm", "model.name=org/model"]
    Path("bin").mkdir()
    program = Path("bin/vllm")
    program.write_text("#!/bin/sh\ntouch started\nexec sleep 300\n")
    program.chmod(0o755)
    path = f"{program.parent.absolute()}:{os.environ['PATH']}"
    with Running("run", *model, *QUIET, *questions, "--json", PATH=path) as running:
        wait_until(Path("started").exists, "the server is starting")
        running.signal(signal.SIGINT)
        done = running.wait()
    assert (done.code, done.json["status"], done.json["owed"]) == (130, "interrupted", ROWS)


def test_ctrl_c_in_a_notebook_stops_a_run_in_a_thread(questions):
    cell = """
import asyncio, runner, sys
async def cell():
    return runner.run(overrides=sys.argv[1:])
print(asyncio.new_event_loop().run_until_complete(cell()).summary.status)  # as a notebook does, with no handler of signals
"""
    with Server(lambda _call: Reply(delay_s=0.3)) as server:
        words = ["model=server", f"model.api_base={server.url}", *QUIET, *questions]
        command = [sys.executable, "-c", cell, *words]
        notebook = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            server.wait_for(3)
            notebook.send_signal(signal.SIGINT)
            assert notebook.communicate(timeout=PATIENCE_S)[0] == "interrupted\n"
        finally:
            notebook.kill()
        assert server.count < ROWS
