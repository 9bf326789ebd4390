"""A sweep through Prefect: one flow, a task a cell, and the table at its end; nothing is started for what is complete."""

import asyncio
import contextlib
import json
import threading

import pytest

import flows.orchestrate
from runner.errors import OrchestratorError
from runner.sweeps.run import sweep
from tests.support.clock import wait_until

pytestmark = pytest.mark.prefect

CELLS = ["model=fake", "data.limit=2", "sampling.temperature=0,0.5", "sampling.seed=1,2"]


@pytest.fixture
def played(clean, kept, monkeypatch, tmp_path):
    """Play a sweep on the kept server, by PREFECT_API_URL, in this process."""
    monkeypatch.setenv("PREFECT_API_URL", kept.api_url)
    monkeypatch.chdir(tmp_path)
    lines = []

    def play(*overrides):
        return sweep([*CELLS, *overrides], notify=lines.append)

    play.lines = lines
    return play


def test_a_sweep_has_a_task_per_cell_named_by_what_varies(played, api):
    result = played()
    assert result.manifest.status == "complete"
    name = result.folder.name
    run = api.flow_run(name)
    assert (run["state_type"], run["tags"].count("ostinato")) == ("COMPLETED", 1)
    assert run["parameters"] == {"folder": str(result.folder), "overrides": CELLS}
    assert api.settled(name, 4) == {
        f"sampling.temperature={temperature}, sampling.seed={seed}": "COMPLETED" for temperature in (0, 0.5) for seed in (1, 2)
    }
    (artifact,) = api.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert (artifact["key"], artifact["type"]) == ("cells-capitals", "table")
    assert [row["status"] for row in json.loads(artifact["data"])] == ["complete"] * 4
    assert "PREFECT_API_URL" in played.lines[0]

    played.lines.clear()  # complete: nobody is asked, Prefect included
    assert played().folder == result.folder
    assert played.lines == []


def test_a_failed_cell_is_a_failed_task_and_the_others_continue(played, api):
    result = played("model.fail_rate=0,1", "model.fail_with=context_window", "sampling.temperature=0", "cache.mode=off")
    assert (result.exit_code, result.manifest.status) == (3, "incomplete")
    states = api.settled(result.folder.name, 4)
    assert sorted(states.values()) == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]
    assert {state for name, state in states.items() if "fail_rate=1" in name} == {"FAILED"}
    assert api.flow_run(result.folder.name)["state_type"] == "COMPLETED"


def test_a_search_is_one_flow(played, api):
    result = played("hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1")
    assert result.manifest.status == "complete"
    assert set(api.settled(result.folder.name, len(result.manifest.cells)).values()) == {"COMPLETED"}


def test_cells_run_before_a_private_server_is_up_which_then_learns_how_they_ended(clean, kept, api, monkeypatch, tmp_path):
    sweeps, stopped = [], []

    class Late:
        """Stand for a private server that is up once all cells have ended."""

        def __init__(self, tasks):
            assert tasks == 6
            self.api_url, self.ui_url = kept.api_url, kept.ui_url

        async def ready(self):
            await asyncio.to_thread(wait_until, lambda: sweeps[0].progress().ended == 6, "the cells")

        def plays(self, _run):
            assert not api.task_states(sweeps[0].folder.name)

        def stop(self):
            stopped.append(api.task_states(sweeps[0].folder.name))

    monkeypatch.setattr(flows.orchestrate, "PrivateServer", Late)
    monkeypatch.setattr(flows.orchestrate, "PAGE", 2)
    monkeypatch.chdir(tmp_path)
    fails = ["model.fail_rate=0,1", "model.fail_with=context_window", "cache.mode=off"]
    fails += ["sampling.temperature=0", "sampling.seed=1,2,3"]
    result = sweep([*CELLS, *fails], watch=lambda begun: sweeps.append(begun) or contextlib.nullcontext())
    assert result.manifest.status == "incomplete"
    (states,) = stopped  # all of them were recorded before it was stopped
    assert sorted(states.values()) == ["COMPLETED"] * 3 + ["FAILED"] * 3
    assert api.flow_run(result.folder.name)["state_type"] == "COMPLETED"
    tasks = api.post("task_runs/filter", {"flow_runs": {"name": {"any_": [result.folder.name]}}})
    assert all(task["start_time"] < task["end_time"] <= task["state"]["timestamp"] for task in tasks)
    assert {task["state"]["message"] for task in tasks if "fail_rate=1" in task["name"]} != {None}


SLOW = ["model.latency_s=3600", "limits.timeout_s=7200", "cache.mode=off"]


def test_a_sweep_that_is_cancelled_in_prefect_ends_and_so_do_its_cells(played, api, monkeypatch):
    monkeypatch.setattr(flows.orchestrate, "CANCEL_POLL_S", 0.1)
    sweeps = []

    def cancel():
        name = wait_until(lambda: sweeps and sweeps[0].folder.name, "the sweep")
        wait_until(lambda: list(api.task_states(name).values()) == ["RUNNING"] * 4, "the tasks of its cells")
        api.post(f"flow_runs/{api.flow_run(name)['id']}/set_state", {"state": {"type": "CANCELLING"}})

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    result = sweep([*CELLS, *SLOW], watch=lambda begun: sweeps.append(begun) or contextlib.nullcontext())
    cancelling.join()
    assert (result.manifest.status, result.exit_code) == ("interrupted", 130)
    # Prefect's server cancels what it still takes for running; it may have recorded before that what the sweep told of its cells
    assert set(api.settled(result.folder.name, 4).values()) <= {"CRASHED", "CANCELLED"}
    assert api.flow_run(result.folder.name)["state_type"] == "CANCELLED"


def test_cells_are_given_up_if_the_private_server_does_not_start(clean, monkeypatch, tmp_path):
    sweeps = []

    class Doomed:
        """Stand for a private server that ends once cells run."""

        api_url = ui_url = "http://127.0.0.1:9"

        def __init__(self, tasks):
            assert tasks == 4

        async def ready(self):
            await asyncio.to_thread(wait_until, lambda: len(sweeps[0].running) == 4, "the cells")
            raise OrchestratorError("it ended instead of starting")

        def stop(self):
            assert not sweeps[0].running

    monkeypatch.setattr(flows.orchestrate, "PrivateServer", Doomed)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OrchestratorError, match="instead of starting"):
        sweep([*CELLS, *SLOW], watch=lambda begun: sweeps.append(begun) or contextlib.nullcontext())
    assert {cell.status for cell in sweeps[0].manifest.cells.values()} == {"interrupted"}
