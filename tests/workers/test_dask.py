"""Dask: runs on a real scheduler and real worker processes, with separate homes and folders, or on a cluster of their own."""

import collections
import contextlib
import json
import signal
from pathlib import Path

import pytest

import runner
from runner.errors import LaunchError
from runner.workers import dask as door
from tests.support.clock import wait_until
from tests.support.command import Running
from tests.support.dask_cluster import Cluster
from tests.support.server import Reply, Server

pytest.importorskip("distributed")

ROWS = 40
_MARK = "OSTINATO_TEST_WORKERS"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as one:
        yield one


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"id": f"r{number}", "q": f"q{number}", "target": f"q{number}"}) for number in range(ROWS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    (tmp_path / "grade.py").write_text("def grade(output, target, row):\n    return float(output == target)\n")
    with Server(Reply(lambda call: call.question)) as one:
        yield one


def overrides(server, *more):
    model = ["model=server", "model.name=m", f"model.api_base={server.url}"]
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=target", "prompt.user='{{ q }}'"]
    scoring = ["scoring=python", "scoring.function=grade.py:grade"]
    return [*model, *data, *scoring, "execution.orchestrator=none", *more]


def spread(address):
    return ["execution.workers.kind=dask", f"execution.workers.address={address}"]


def lines(folder):
    found = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    for line in found:
        del line["started_at"], line["latency_s"]
    return sorted(found, key=lambda line: line["id"])


def test_workers_of_a_cluster_share_nothing_but_its_address(cluster, server):
    alone = runner.run(overrides=overrides(server, "cache.mode=off"))
    together = runner.run(overrides=overrides(server, *spread(cluster.address)))
    again = runner.run(overrides=overrides(server, *spread(cluster.address)))

    assert [{**line, "cache": "off"} for line in lines(together.folder)] == lines(alone.folder)
    assert together.summary.scores["grade"].mean == 1.0
    assert again.summary.cache_hits == ROWS
    assert server.count == 2 * ROWS


def test_a_killed_worker_costs_what_it_had_in_flight(cluster, server):
    victim = cluster.workers.pop(0)
    server.otherwise = Reply(lambda call: call.question, delay_s=0.02)
    seen = collections.Counter()

    def answer(call):
        seen["all"] += 1
        if seen["all"] == ROWS // 2:
            victim.kill()
        return Reply(call.question, delay_s=0.02)

    server.otherwise = answer
    result = runner.run(overrides=overrides(server, *spread(cluster.address), "limits.max_concurrency=8"))
    cluster.add()

    asked = collections.Counter(call.question for call in server.calls)
    assert result.summary.ok == ROWS
    assert [line["id"] for line in lines(result.folder)] == sorted(f"r{number}" for number in range(ROWS))
    assert sum(asked.values()) - ROWS <= 8 + 1
    assert result.summary.requests >= server.count
    assert not (result.folder / "spending.jsonl").exists() or result.summary.unrecorded.requests


def test_a_worker_without_the_key_is_named(cluster, server, monkeypatch):
    monkeypatch.setenv("ONLY_HERE", "sk-0123456789abcdef")
    with pytest.raises(LaunchError, match=r"no worker can play this run: .*ONLY_HERE"):
        runner.run(overrides=overrides(server, *spread(cluster.address), "model.api_key_env=ONLY_HERE"))
    assert server.count == 0


def test_a_worker_of_another_version_is_named(cluster, server, monkeypatch):
    monkeypatch.setattr(door, "code_digest", lambda: "another")
    with pytest.raises(LaunchError, match="has another version of ostinato's code"):
        runner.run(overrides=overrides(server, *spread(cluster.address)))
    assert server.count == 0


def test_an_address_that_nothing_answers_at_is_named(server, monkeypatch):
    monkeypatch.setattr(door, "CONNECT_S", 0.5)
    with pytest.raises(LaunchError, match=r"execution.workers.address=tcp://127.0.0.1:9: no Dask scheduler answers there"):
        runner.run(overrides=overrides(server, *spread("tcp://127.0.0.1:9")))
    assert server.count == 0


def processes(mark):
    """The processes that have this mark in their environment, or inherit it."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{_MARK}={mark}".encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_end_of_the_head_ends_its_own_workers(server, tmp_path, number):
    server.otherwise = Reply(lambda call: call.question, delay_s=0.2)
    command = ["run", *overrides(server, "execution.workers.kind=dask", "limits.max_concurrency=2"), "--display", "plain"]
    mark = f"{tmp_path.name}-{int(number)}"
    with Running(*command, **{_MARK: mark, "OSTINATO_HOME": str(tmp_path / "home")}) as running:
        server.wait_for(4)
        assert len(processes(mark)) >= 3, "the command and its two workers"
        running.signal(number)
        running.process.wait()
    wait_until(lambda: not processes(mark), "the end of all workers")
    folder = next((tmp_path / "runs").glob("*/2*"))
    before = len(lines(folder))

    assert (number == signal.SIGKILL) or running.process.returncode == 130
    server.otherwise = Reply(lambda call: call.question)
    asked = server.count
    done = runner.resume(folder, ["execution.workers.kind=null"])
    assert done.summary.ok == ROWS
    assert server.count - asked == ROWS - before, "what is in the record is not asked again"
