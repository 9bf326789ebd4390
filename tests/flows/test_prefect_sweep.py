"""A sweep through Prefect: one flow, a task a cell, and the table at its end; nothing is started for what is complete."""

import json

import pytest

from runner.sweeps.run import sweep

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
