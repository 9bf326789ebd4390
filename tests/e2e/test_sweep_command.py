"""A sweep as people play it: stopped in any way, it goes on and asks nothing twice; stdout is data, and exit codes tell."""

import json
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.support.clock import PATIENCE_S, wait_until
from tests.support.command import Running, ostinato
from tests.support.server import Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

ROWS = 6
CELLS = 4
VARIED = "sampling.temperature=0,0.5,1,1.5"


@pytest.fixture
def asked():
    """The words of a sweep over rows, without the address of a server."""
    rows = [{"id": f"r{n}", "question": f"What is {n}?", "answer": "ok"} for n in range(ROWS)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=exact"]
    return ["run", "-m", VARIED, "execution.orchestrator=none", "sweep.concurrency=2", "limits.max_concurrency=2", *data]


def at(server):
    return ["model=server", f"model.api_base={server.url}"]


def requests(server):
    return Counter((call.question, call.body["temperature"]) for call in server.calls)


def finished():
    """How many samples the cells have recorded."""
    return sum(file.read_bytes().count(b"\n") for file in Path("runs").glob("rows/sweep-*/cells/2*/samples.jsonl"))


class Gate:
    """Answers so many requests, and holds the next until it is opened."""

    def __init__(self, count):
        self.left = threading.Semaphore(count)
        self.opened = threading.Event()

    def __call__(self, _call):
        if not self.left.acquire(blocking=False):
            self.opened.wait(PATIENCE_S)
        return Reply()


def test_a_killed_sweep_resumes_and_asks_nothing_twice(asked):
    gate = Gate(7)
    with Server(gate) as server:
        with Running(*asked, *at(server)) as running:
            server.wait_for(9)
            wait_until(lambda: finished() == 7, "seven samples are recorded")
            running.signal(signal.SIGKILL)
            assert running.wait().code == -signal.SIGKILL
        in_flight = server.count - 7
        gate.opened.set()
        done = ostinato(*asked, *at(server), "--json")
        assert (done.code, done.json["status"], len(done.json["cells"])) == (0, "complete", CELLS)
        assert server.count == CELLS * ROWS + in_flight
        assert len(requests(server)) == CELLS * ROWS
        assert [file.name for file in Path("runs/rows").glob("sweep-*")] == [Path(done.json["sweep"]).name]
        assert len(list(Path(done.json["sweep"]).glob("cells/2*"))) == CELLS
        again = ostinato(*asked, *at(server), "--json")
        assert (again.code, again.json["cells"], server.count) == (0, done.json["cells"], CELLS * ROWS + in_flight)


def test_ctrl_c_finishes_requests_in_flight(asked):
    gate = Gate(7)
    with Server(gate) as server:
        with Running(*asked, *at(server), "--json") as running:
            server.wait_for(9)
            running.signal(signal.SIGINT)
            running.says("stopping: what is in flight is finished and kept")
            gate.opened.set()
            done = running.wait()
        assert (done.code, done.json["status"], server.count, finished()) == (130, "interrupted", 9, 9)
        folder = Path(done.json["sweep"]).relative_to(Path.cwd())
        assert done.err.splitlines()[-1].endswith(f"cells are not complete; resume with: ostinato resume {folder}")
        done = ostinato("resume", "--json")
        assert (done.code, done.json["status"], server.count) == (0, "complete", CELLS * ROWS)
        assert set(requests(server).values()) == {1}


def test_a_second_ctrl_c_stops_immediately(asked):
    gate = Gate(7)
    with Server(gate) as server:
        with Running(*asked, *at(server), "--json") as running:
            server.wait_for(9)
            wait_until(lambda: finished() == 7, "seven samples are recorded")
            running.signal(signal.SIGINT)
            running.says("press Ctrl-C again")
            running.signal(signal.SIGINT)
            done = running.wait()
        gate.opened.set()
        assert (done.code, done.json["status"], finished()) == (130, "interrupted", 7)
        assert ostinato("resume", "latest", "--json").json["status"] == "complete"


def test_a_budget_stops_a_sweep_and_a_larger_one_continues_it(asked):
    with Server() as server:
        done = ostinato(*asked, *at(server), "budget.requests=7")
        assert (done.code, server.count) == (3, 7)
        assert "rows: incomplete, " in done.out
        assert "budget.requests=7 does not allow another request" in done.err
        done = ostinato(*asked, *at(server), "budget.requests=100")
        assert (done.code, server.count) == (0, CELLS * ROWS)


def test_fail_fast_stops_the_sweep(asked):
    with Server(Status(401, "no")) as server:
        done = ostinato(*asked, *at(server), "--fail-fast", "sweep.concurrency=1")
        assert done.code == 1
        assert "fail_fast is set" in done.err
        assert len(list(Path("runs/rows").glob("sweep-*/cells/2*"))) == 1


def test_the_command_prints_a_table_of_cells(asked):
    with Server(lambda call: Reply("ok" if call.body["temperature"] < 1 else "no")) as server:
        done = ostinato(*asked, *at(server))
    lines = done.out.splitlines()
    assert lines[0] == f"rows: complete, {CELLS} of {CELLS} cells"
    assert lines[1].split() == ["temperature", "exact", "ok", "tokens", "p50", "p95"]
    assert [line.split()[:4] for line in lines[2:4]] == [
        ["0", "1.000", "[0.541,", "1.000]"],
        ["0.5", "1.000", "[0.541,", "1.000]"],
    ]
    assert ["best" in line for line in lines[2:6]] == [True, False, False, False]
    assert ["tied" in line for line in lines[2:6]] == [False, True, False, False]
    folder = lines[-1].split()[1]
    assert ostinato("show").out == ostinato("show", folder).out == done.out
    assert ostinato("show", "latest", "--json").json["cells"][0]["score.exact"] == 1.0
    assert ostinato("ls").out == f"{folder}  complete  sweep over sampling.temperature  {CELLS}/{CELLS} cells\n"
    assert ostinato("ls", "--json").json["sweeps"][0]["complete"] == CELLS
    done = ostinato("retry", folder)
    assert (done.code, "is a sweep, and a run is needed here" in done.err) == (1, True)
    cell = next(Path(folder).glob("cells/2*"))
    assert ostinato("show", str(cell), "--rows", "1").out.startswith("rows: complete")


def test_a_dry_run_makes_and_sends_nothing(asked):
    with Server() as server:
        done = ostinato(*asked, *at(server), "--dry-run", "--json")
        assert (done.code, server.count, Path("runs").exists()) == (0, 0, False)
        total = done.json["total"]
        assert (total["cells"], total["samples"], total["owed"], total["requests"]) == (
            CELLS,
            CELLS * ROWS,
            CELLS * ROWS,
            CELLS * ROWS,
        )
        ostinato(*asked, *at(server))
        total = ostinato(*asked, *at(server), "--dry-run", "--json").json["total"]
        assert (total["recorded"], total["owed"]) == (CELLS, 0)
        other = [f"{VARIED},2", "sampling.max_tokens=1000", "name=other"]
        total = ostinato(*asked[:2], *other, *asked[3:], *at(server), "--dry-run", "--json").json["total"]
        assert (total["cache_hits"], total["owed"], total["requests"]) == (CELLS * ROWS, ROWS, ROWS)
        assert "cells       4" in ostinato(*asked, *at(server), "--dry-run").out


def test_an_experiment_with_a_sweep_needs_no_flag(asked):
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("# @package _global_\nsweep: {grid: {sampling.seed: [1, 2]}}\n")
    words = [word for word in asked if word not in ("-m", VARIED)]
    with Server() as server:
        done = ostinato(*words, *at(server), "experiment=mine", "--json")
        assert (done.code, done.json["keys"], server.count) == (0, ["sampling.seed"], 2 * ROWS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "sampling.temperature=0"], "nothing varies"),
        (["sampling.temperature=0,1"], "ostinato run -m"),
        (["-m", "sampling.temperatur=0,1"], "did you mean 'temperature'?"),
    ],
)
def test_errors_are_found_before_anything_is_made(words, message):
    done = ostinato("run", "model=fake", *words)
    assert (done.code, done.out, message in done.err) == (2, "", True), done.err
    assert not Path("runs").exists()


def test_values_that_look_like_markup_are_shown_literally(asked):
    with Server() as server:
        words = [word for word in asked if word != VARIED]
        done = ostinato(*words, *at(server), "prompt.user='[INST] {{ question }} [/INST]','[json] {{ question }}'")
        assert done.code == 0, done.err
        assert "[INST] {{ question }} [/INST]" in done.out
        assert "[json] {{ question }}" in done.out
        assert "[/INST]" in ostinato("show", "latest").out


def test_report_and_table_agree_on_the_best_cell_when_minimising(asked):
    with Server(lambda call: Reply("ok" if call.body["temperature"] == 1 else "no")) as server:
        done = ostinato(*asked, *at(server), "sweep.direction=minimize", "--json")
        assert done.code == 0, done.err
    assert [cell["score.exact"] for cell in ostinato("show", "latest", "--json").json["cells"]] == [0, 0, 0, 1]
    page = next(Path("runs/rows").glob("sweep-*/report.html")).read_text()
    assert "best exact" in page
    table = page[page.index("Cells, best first") :]
    assert table.index("0.000") < table.index("1.000")


def test_a_half_made_folder_of_a_killed_process_is_ignored(asked):
    with Server() as server:
        assert ostinato(*asked, *at(server)).code == 0
        (folder,) = Path("runs/rows").glob("sweep-*")
        (folder / "manifest.json").unlink()  # it is written last
        assert ostinato(*asked, *at(server)).code == 0
        assert len(list(Path("runs/rows").glob("sweep-*"))) == 2


def test_a_cell_folder_missing_from_the_manifest_is_made_again(asked):
    """A kill in the moment between the two: nothing had been asked, and nothing of it stays."""
    with Server() as server:
        assert ostinato(*asked, *at(server)).code == 0
        (folder,) = Path("runs/rows").glob("sweep-*")
        manifest = json.loads((folder / "manifest.json").read_text())
        cell = next(iter(manifest["cells"].values()))
        (folder / cell["run"] / "samples.jsonl").unlink()
        cell["run"], cell["status"] = None, "pending"
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "cells/mine").mkdir()
        done = ostinato(*asked, *at(server), "--json")
        assert (done.code, done.json["status"], server.count) == (0, "complete", CELLS * ROWS)  # its answers are in the cache
        assert len(list(folder.glob("cells/2*"))) == CELLS
        assert (folder / "cells/mine").is_dir()  # of no run, and not ours to delete
