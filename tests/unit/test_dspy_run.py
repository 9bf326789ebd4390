"""``solver=dspy``: killed, resumed, packed, and replayed where there is no network. Skipped without dspy."""

import signal
from pathlib import Path

import pytest

from runner.records import RunFolder
from runner.reproduction.replay import replay
from tests.support.command import Running, ostinato
from tests.support.server import Hang, Server
from tests.unit.test_dspy import FILE, base, fields

pytest.importorskip("dspy", reason="dspy is not installed: .ci/run tests it in environments of its own")

ROWS = "data.rows=[{id: a, question: one}, {id: b, question: two}, {id: c, question: three}, {id: d, question: four}]"


def test_a_killed_run_goes_on_and_its_capsule_is_replayed_without_a_network(in_tmp, monkeypatch):
    Path("flow.py").write_text(FILE)
    Path("hints.py").write_text("HINT = 'be brief'\n")
    with Server() as server:
        server.otherwise = lambda call: fields(call) if len(server.calls) < 6 else Hang()
        words = [*base(server), "data=inline", ROWS, "data.id=id", "limits.max_concurrency=1"]
        with Running("run", *words, "solver=dspy", "solver.module=flow.py:Two") as run:
            server.wait_for(6)  # two rows are done, the third has its first step
            run.signal(signal.SIGKILL)
            run.process.wait()
        (folder,) = Path("runs").glob("*/2*")
        before = (folder / "samples.jsonl").read_bytes()
        server.otherwise = fields
        done = ostinato("resume", str(folder))
        assert (done.code, len(server.calls)) == (0, 9), done.err  # the third's second step, and two of the fourth
    samples = {sample.id: sample for sample in RunFolder.open(folder).samples()}
    assert (folder / "samples.jsonl").read_bytes().startswith(before)
    assert [(samples[id_].output, len(samples[id_].steps)) for id_ in "abcd"] == [
        ("one!!", 2),
        ("two!!", 2),
        ("three!!", 2),
        ("four!!", 2),
    ]
    assert ostinato("pack", str(folder), "-o", "it.ostinato").code == 0
    capsule = Path("it.ostinato").resolve()
    (in_tmp / "there").mkdir()
    monkeypatch.chdir(in_tmp / "there")
    monkeypatch.setenv("OSTINATO_HOME", str(in_tmp / "elsewhere"))
    assert replay(capsule, trust_code=True).outputs == 4  # the server has stopped
