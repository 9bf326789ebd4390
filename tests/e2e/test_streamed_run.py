"""A streamed run that is stopped in the middle of its answers forgets no cent, and ends as any other: packed and replayed."""

import json
import signal
from pathlib import Path

import pytest

import runner
from runner.records import RunFolder
from runner.records.spending import unrecorded
from runner.reproduction.pack import pack
from runner.reproduction.replay import replay
from tests.support.clock import wait_until
from tests.support.command import Running, ostinato
from tests.support.seen_streams import ROLE, TEXT, stream
from tests.support.server import Reply, Server, Stream

pytestmark = pytest.mark.usefixtures("in_tmp")

ROWS = 6
HELD = Stream((stream(ROLE, TEXT, done=False),), "hang")


def recorded(folder):
    return (folder / "samples.jsonl").read_bytes().count(b"\n")


def test_a_streamed_run_is_interrupted_killed_resumed_packed_and_replayed(tmp_path):
    rows = [{"id": f"r{n}", "question": f"What is {n}?", "answer": "ok"} for n in range(ROWS)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=contains"]
    more = ["execution.orchestrator=none", "limits.max_concurrency=2", "limits.stream=always", "budget.tokens=100000"]
    price = ["model.price.prompt=1000", "model.price.completion=1000"]
    with Server() as server:
        asked = ["model=server", f"model.api_base={server.url}", *data, *more, *price]
        server.script(Reply(), HELD, HELD)
        with Running("run", *asked) as running:
            server.wait_for(3)
            wait_until(lambda: any(Path("runs/rows").glob("2*/samples.jsonl")), "a sample")
            running.signal(signal.SIGINT)
            running.says("stopping: what is in flight is finished and kept")
            running.signal(signal.SIGINT)
            assert running.wait().code == 130
        (folder,) = Path("runs/rows").glob("2*")
        assert recorded(folder) == 1
        spent = unrecorded(RunFolder.open(folder)).spent
        assert (spent.requests, spent.held.attempts) == (2, 2)
        assert spent.held.usd > 0

        server.script(Reply(), HELD, HELD)
        with Running("resume", str(folder)) as running:
            server.wait_for(6)
            wait_until(lambda: recorded(folder) == 2, "a second sample")
            running.signal(signal.SIGKILL)
            running.wait()
        killed = unrecorded(RunFolder.open(folder)).spent
        assert (killed.requests, killed.held.attempts) == (4, 4)
        assert killed.held.usd == pytest.approx(2 * spent.held.usd)

        done = ostinato("resume", str(folder), "--json")
        assert (done.code, done.json["ok"], done.json["requests"]) == (0, ROWS, ROWS + 4)
        assert all(call.body["stream"] for call in server.calls)

        again = runner.run(overrides=[*asked, "limits.stream=never"])
        assert (again.summary.requests, again.summary.cache_hits) == (0, ROWS)
    record = RunFolder.open(folder)
    assert all(0 < sample.first_token_s <= sample.latency_s for sample in record.samples())
    assert all(sample.first_token_s is None for sample in again.samples)
    assert runner.load(folder).facts().first_tokens
    replayed = replay(pack(folder, tmp_path / "run.ostinato").file)
    assert (replayed.identical, replayed.exit_code) == (True, 0)
