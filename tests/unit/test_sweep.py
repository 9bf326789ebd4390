"""Sweeps, played through the Python API: what is asked and what is not, what is recorded, and how a sweep goes on."""

import csv
import json
from collections import Counter
from itertools import product
from pathlib import Path

import polars
import pytest

import runner
from runner.errors import ConfigError, RecordError
from runner.network.retry import without_sleeping
from runner.records import RunFolder, SweepFolder, find_record, find_run
from runner.reports import render
from runner.sweeps.run import resume_sweep, sweep
from tests.support.server import Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

QUIET = ["execution.orchestrator=none"]
FAKE = ["model=fake", *QUIET]
ROWS = 4
TEMPERATURES = "sampling.temperature=0,0.5,1"


def questions(count=ROWS, path="rows.jsonl"):
    rows = [{"id": f"r{n}", "question": f"What is {n}?", "answer": "ok"} for n in range(count)]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["data=jsonl", f"data.path={path}", "data.id=id", "data.target=answer", "prompt=default", "scoring=exact"]


@pytest.fixture
def server():
    with Server() as running:
        yield running


def served(server, *more):
    return ["model=server", "model.name=test", f"model.api_base={server.url}", *QUIET, *questions(), *more]


def statuses(result):
    return Counter(cell.status for cell in result.manifest.cells.values())


def asked(server):
    """How often each question was sent at each temperature."""
    return Counter((call.question, call.body["temperature"]) for call in server.calls)


# -- what a sweep leaves


def test_a_sweep_records_cells_manifest_and_tables(server):
    result = sweep(served(server, TEMPERATURES, "sampling.repeats=2"))
    assert (result.exit_code, result.manifest.status, statuses(result)) == (0, "complete", {"complete": 3})
    assert server.count == 3 * ROWS * 2
    assert result.folder.parent == Path("runs/rows").absolute()
    assert result.folder.name.startswith("sweep-")
    assert Path("runs/rows/latest").resolve() == result.folder
    names = {file.name for file in result.folder.iterdir()}
    assert names == {"sweep.yaml", "manifest.json", "report.html", "table.csv", "table.parquet", "cells"}
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert {key: manifest[key] for key in ("format", "kind", "name", "status", "keys", "primary")} == {
        "format": 1,
        "kind": "sweep",
        "name": "rows",
        "status": "complete",
        "keys": ["sampling.temperature"],
        "primary": "exact",
    }
    for key, cell in manifest["cells"].items():
        assert len(key) == 12
        page = result.folder / cell["run"] / "report.html"
        assert page.read_text("utf-8") == render(page.parent)
        assert runner.report(result.folder / cell["run"]).is_file()
        run = RunFolder.open(result.folder / cell["run"])
        assert run.summary().rows == ROWS * 2
        assert f"temperature: {float(cell['values']['sampling.temperature'])}" in run.config_file.read_text()


def test_the_table_has_one_tidy_row_per_cell(server):
    result = sweep(served(server, TEMPERATURES, "prompt.system='be, brief','x'"))
    with (result.folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    first = rows[0]
    assert (first["sampling.temperature"], first["prompt.system"], first["status"]) == ("0", "be, brief", "complete")
    assert (first["n"], first["ok"], first["errors"], first["requests"]) == ("4", "4", "0", "4")
    assert (first["score.exact"], first["score.exact.stderr"], first["score.exact.n"]) == ("1.0", "0.0", "4")
    assert (first["prompt_tokens"], first["completion_tokens"], first["cost_usd"]) == ("28", "12", "")
    assert 0 < float(first["latency_p50_s"]) <= float(first["latency_p95_s"])
    frame = polars.read_parquet(result.folder / "table.parquet")
    assert frame["cell"].to_list() == [row["cell"] for row in rows]
    assert frame["sampling.temperature"].to_list() == [0, 0, 0.5, 0.5, 1, 1]


def test_the_best_cell_and_its_ties_are_marked(server):
    def answer(call):
        number = int(call.question.removeprefix("What is ").rstrip("?"))
        wrong = {0: 0, 0.5: 1, 1: 12}[call.body["temperature"]]
        return Reply("no" if number < wrong else "ok")

    server.otherwise = answer
    result = sweep(["model=server", f"model.api_base={server.url}", *QUIET, *questions(20), TEMPERATURES])
    assert [(row["sampling.temperature"], row["score.exact"], row["best"], row["tied"]) for row in result.rows] == [
        (0, 1.0, True, None),
        (0.5, 0.95, False, True),
        (1, 0.4, False, False),
    ]
    result = sweep(
        ["model=server", f"model.api_base={server.url}", *QUIET, *questions(20), TEMPERATURES, "sweep.direction=minimize"]
    )
    assert [row["score.exact"] for row in result.rows] == [0.4, 0.95, 1.0]


# -- again


def test_a_repeated_sweep_asks_nothing(server, monkeypatch):
    first = sweep(served(server, TEMPERATURES))
    again = sweep(served(server, TEMPERATURES))
    assert (again.folder, again.manifest.cells, server.count) == (first.folder, first.manifest.cells, 3 * ROWS)


def test_another_value_runs_only_new_cells(server):
    first = sweep(served(server, TEMPERATURES))
    more = sweep(served(server, f"{TEMPERATURES},1.5"))
    assert more.folder == first.folder
    assert {*first.manifest.cells} < {*more.manifest.cells}
    assert set(asked(server).values()) == {1}
    assert server.count == 4 * ROWS
    fewer = sweep(served(server, "sampling.temperature=0,1"))  # what is there stays in the table
    assert (fewer.folder, len(fewer.manifest.cells), server.count) == (first.folder, 4, 4 * ROWS)


def test_cells_by_different_weights_are_a_warning(server):
    def vllm(root):
        return {"/v1/models": {"data": [{"id": "test", "owned_by": "vllm", "root": root}]}}

    server.told = vllm("/w/a")
    sweep(served(server, TEMPERATURES))
    server.told = vllm("/w/b")
    with pytest.warns(UserWarning, match=r"served different weights for openai/test: a:\w+, b:\w+; its cells are not comparable"):
        result = sweep(served(server, f"{TEMPERATURES},1.5"))
    assert result.manifest.status == "complete"
    assert "different weights" in (result.folder / "run.log").read_text()


def test_another_base_or_other_keys_make_another_sweep(server):
    folders = [sweep(served(server, TEMPERATURES)).folder]
    folders += [sweep(served(server, TEMPERATURES, "sampling.max_tokens=5")).folder]
    folders += [sweep(served(server, TEMPERATURES, "sampling.seed=1,2")).folder]
    Path("rows.jsonl").write_text(Path("rows.jsonl").read_text().replace("What is 0?", "Which is 0?"))
    overrides = ["model=server", "model.name=test", f"model.api_base={server.url}", *QUIET, *questions(5), TEMPERATURES]
    folders += [sweep(overrides).folder]
    assert len(set(folders)) == 4


def test_the_folder_is_found_with_another_budget_and_limits(server):
    first = sweep(served(server, TEMPERATURES))
    again = sweep(served(server, TEMPERATURES, "limits.max_concurrency=2", "budget.requests=100", "sweep.concurrency=1"))
    assert (again.folder, server.count) == (first.folder, 3 * ROWS)


# -- what cells share


def test_cells_with_the_same_requests_send_them_once(server):
    result = sweep(served(server, "scoring=exact,contains"))
    assert (statuses(result), server.count) == ({"complete": 2}, ROWS)


def test_cells_share_the_concurrency_of_the_endpoint(server):
    server.otherwise = Reply(delay_s=0.02)
    sweep(served(server, TEMPERATURES, "limits.max_concurrency=2", "sweep.concurrency=3"))
    assert (server.count, server.most_at_once) == (3 * ROWS, 2)


def test_one_budget_covers_all_cells(server):
    result = sweep(served(server, TEMPERATURES, "budget.requests=6", "sweep.concurrency=1"))
    assert (result.exit_code, result.manifest.status, server.count) == (3, "incomplete", 6)
    assert statuses(result) == {"complete": 1, "incomplete": 1, "pending": 1}
    again = resume_sweep(result.folder, ["budget.requests=7"])
    assert (again.manifest.status, server.count) == ("incomplete", 7)
    again = resume_sweep(result.folder, ["budget.requests=50"])
    assert (again.manifest.status, statuses(again)) == ("complete", {"complete": 3})
    assert set(asked(server).values()) == {1}


def test_a_budget_over_cells_holds_when_rows_are_cut_off_between_their_attempts(server):
    server.otherwise = Status(500, "internal")
    with without_sleeping():
        result = sweep(served(server, TEMPERATURES, "budget.requests=5", "sweep.concurrency=2", "limits.max_concurrency=2"))
        for _ in range(3):
            runs = [RunFolder.open(result.folder / cell.run) for cell in result.manifest.cells.values() if cell.run]
            assert server.count == sum(run.summary().requests for run in runs) == 5
            result = resume_sweep(result.folder)


def test_the_cost_of_a_killed_sitting_counts_against_the_budget(server):
    bounded = ["budget.requests=6", "sweep.concurrency=1"]
    result = sweep(served(server, TEMPERATURES, *bounded))
    (half,) = [cell for cell in result.manifest.cells.values() if cell.status == "incomplete"]
    run = result.folder / half.run
    summary = (run / "summary.json").read_text()
    assert resume_sweep(result.folder, ["budget.requests=7"]).manifest.status == "incomplete"
    (run / "summary.json").write_text(summary)  # as a sitting leaves it that is killed: of the one before
    assert resume_sweep(result.folder, ["budget.requests=8"]).manifest.status == "incomplete"
    assert server.count == 8


def test_many_cells_resume_at_the_same_time(server):
    cells = "sampling.seed=" + ",".join(map(str, range(8)))
    server.otherwise = Status(400, "no", type="x")
    bounds = ["limits.max_concurrency=8", "sweep.concurrency=8"]
    first = sweep(served(server, cells, *bounds))
    assert statuses(first) == {"failed": 8}
    server.otherwise = Reply()
    again = sweep(served(server, cells, *bounds))
    assert (again.folder, statuses(again)) == (first.folder, {"complete": 8})


@pytest.mark.parametrize("file", ["manifest.json", "summary.json", "config.yaml"])
def test_a_cell_that_a_power_failure_has_emptied_is_run_again(server, file):
    first = sweep(served(server, TEMPERATURES))
    lost = next(iter(first.manifest.cells.values()))
    (first.folder / lost.run / file).write_bytes(b"")
    again = sweep(served(server, TEMPERATURES))
    assert (again.folder, statuses(again)) == (first.folder, {"complete": 3})
    assert server.count == 3 * ROWS  # its answers are in the cache


def test_a_cell_that_a_killed_process_had_not_named_is_named_by_its_run(server):
    first = sweep(served(server, TEMPERATURES, "cache.mode=off"))
    record = SweepFolder.open(first.folder)
    manifest = record.read()
    for cell in manifest.cells.values():
        cell.run, cell.status = None, "pending"
    record.write(manifest)
    again = sweep(served(server, TEMPERATURES, "cache.mode=off"))
    assert {key: cell.run for key, cell in again.manifest.cells.items()} == {
        key: cell.run for key, cell in first.manifest.cells.items()
    }
    assert server.count == 3 * ROWS


# -- cells that fail


def refuse_half(call):
    return Status(400, "not that hot") if call.body["temperature"] == 0.5 else Reply()


def test_a_failed_cell_does_not_stop_the_others(server):
    server.otherwise = refuse_half
    result = sweep(served(server, TEMPERATURES, "sweep.concurrency=1"))
    assert (result.exit_code, result.manifest.status, statuses(result)) == (3, "incomplete", {"complete": 2, "failed": 1})
    (failed,) = [cell for cell in result.manifest.cells.values() if cell.status == "failed"]
    assert "not that hot" in failed.problem
    server.reset()
    server.otherwise = Reply()
    again = sweep(served(server, TEMPERATURES))
    assert (again.manifest.status, asked(server)) == ("complete", Counter({(f"What is {n}?", 0.5): 1 for n in range(ROWS)}))


def test_failed_rows_are_asked_again(server):
    server.otherwise = lambda call: Status(400, "no", type="x") if call.question == "What is 2?" else Reply()
    one_by_one = served(server, "sampling.temperature=0,1", "limits.max_concurrency=1")  # a refusal must not be the first reply
    result = sweep(one_by_one)
    assert (result.exit_code, statuses(result)) == (3, {"incomplete": 2})
    server.reset()
    server.otherwise = Reply()
    again = sweep(one_by_one)
    assert (again.manifest.status, {call.question for call in server.calls}, server.count) == ("complete", {"What is 2?"}, 2)


def test_fail_fast_stops_at_the_first_failed_cell(server):
    server.otherwise = refuse_half
    result = sweep(served(server, "sampling.temperature=0.5,0,1", "sweep.concurrency=1", "sweep.fail_fast=true"))
    assert (result.exit_code, result.manifest.status) == (1, "failed")
    assert statuses(result) == {"failed": 1, "pending": 2}
    assert {call.body["temperature"] for call in server.calls} == {0.5}


def test_a_sweep_fails_if_every_cell_fails(server):
    server.otherwise = Status(401, "who are you?")
    result = sweep(served(server, TEMPERATURES))
    assert (result.exit_code, result.manifest.status, statuses(result)) == (1, "failed", {"failed": 3})


def test_a_missing_key_fails_only_its_cells(server):
    result = sweep(served(server, "model.api_key_env=null,NO_SUCH_KEY", "cache.mode=off"))
    assert statuses(result) == {"complete": 1, "failed": 1}
    assert "NO_SUCH_KEY" in " ".join(cell.problem or "" for cell in result.manifest.cells.values())


# -- going on


def test_a_sweep_resumes_only_in_its_working_directory(server, monkeypatch, tmp_path):
    result = sweep(served(server, TEMPERATURES, "budget.requests=6"))
    with pytest.raises(ConfigError, match="a resumed sweep keeps its config; only limits, budget, launch, expect, "):
        resume_sweep(result.folder, ["sampling.seed=1"])
    Path("rows.jsonl").write_text(Path("rows.jsonl").read_text().replace("What", "Which"))
    with pytest.raises(RecordError, match="the configs or the data have changed since this sweep began"):
        resume_sweep(result.folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError, match="was begun in"):
        resume_sweep(result.folder)


def test_a_locked_sweep_is_refused(server):
    result = sweep(served(server, TEMPERATURES))
    record = SweepFolder.open(result.folder)
    record.lock()
    with pytest.raises(RecordError, match="is being played"):
        sweep(served(server, TEMPERATURES))
    record.close()


def test_a_sweep_is_found_by_its_names(server):
    assert sweep(served(server, TEMPERATURES)).folder == find_record("latest", Path("runs")).path
    result = sweep(served(server, TEMPERATURES))
    for name in ("latest", "rows", "rows/latest", result.folder.name, str(result.folder)):
        assert find_record(name, Path("runs")).path == result.folder
    with pytest.raises(RecordError, match="is a sweep, and a run is needed here"):
        find_run(str(result.folder), Path("runs"))
    run = runner.run(overrides=served(server))
    assert find_run("latest", Path("runs")).path == run.folder


def test_run_refuses_a_config_with_a_sweep():
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("# @package _global_\nsweep: {grid: {sampling.seed: [1, 2]}}\n")
    with pytest.raises(ConfigError, match=r"play its cells with runner.sweep"):
        runner.run(overrides=[*FAKE, "experiment=mine"])
    result = runner.sweep([*FAKE, "experiment=mine", "data.limit=2"])
    assert [cell.values for cell in result.manifest.cells.values()] == [{"sampling.seed": 1}, {"sampling.seed": 2}]


def test_no_secret_is_written(server, monkeypatch):
    key = "sk-hunter2hunter2hunter2x9Qz"
    monkeypatch.setenv("MY_KEY", key)
    result = sweep(served(server, TEMPERATURES, "model.api_key_env=MY_KEY"))
    assert server.last.headers["authorization"] == f"Bearer {key}"
    assert all(key not in file.read_text(errors="replace") for file in result.folder.rglob("*") if file.is_file())


# -- a sweeper that searches


OPTUNA = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=1", "sampling.temperature=interval(0,2)"]


def hot(call):
    """Right the more often the hotter."""
    number = int(call.question.removeprefix("What is ").rstrip("?"))
    return Reply("ok" if number < call.body["temperature"] * 2 else "no")


def test_optuna_searches_on_the_primary_score(server):
    server.otherwise = hot
    result = sweep(served(server, *OPTUNA))
    assert (result.manifest.status, statuses(result)) == ("complete", {"complete": 5})
    assert server.count == 5 * ROWS
    best = result.rows[0]
    found = (result.folder / "optimization_results.yaml").read_text()
    assert f"best_value: {best['score.exact']}" in found
    assert best["score.exact"] == max(row["score.exact"] for row in result.rows)
    more = sweep(served(server, *OPTUNA, "hydra.sweeper.n_trials=7"))  # goes on with the same proposals
    assert (more.folder, len(more.manifest.cells), server.count) == (result.folder, 7, 7 * ROWS)
    assert {*result.manifest.cells} < {*more.manifest.cells}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["hydra/sweeper/sampler=grid"],
            r"sampling\.temperature: an interval has infinitely many values, and this sampler tries each",
        ),
        (["hydra.sweeper.storage=sqlite:////no/such/folder/x.db"], r"cannot search: OperationalError: .*unable to open database"),
        (["hydra.sweeper.storage=postgresql://u:hush@127.0.0.1:1/x"], r"^hydra/sweeper=optuna cannot search: (?!.*hush)[^\n]*$"),
        (["sampling.temperature=interval(1,0)"], r"cannot search: ValueError: .*low"),
    ],
)
def test_a_search_that_cannot_work_is_one_line(server, more, message):
    with pytest.raises(ConfigError, match=message):
        sweep(served(server, *OPTUNA, *more))
    assert server.count == 0


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_optuna_searches_a_range_without_its_end(server, sampler):
    varied = ["sampling.temperature=range(0.7,1,0.1)", "sampling.seed=range(2)"]
    result = sweep(served(server, *OPTUNA, *varied, "hydra.sweeper.n_trials=9", f"hydra/sweeper/sampler={sampler}"))
    found = {(cell.values["sampling.temperature"], cell.values["sampling.seed"]) for cell in result.manifest.cells.values()}
    assert found <= set(product([0.7, 0.8, 0.9], [0, 1]))
    assert len(found) == 6 if sampler == "grid" else found
    assert result.manifest.status == "complete"


def test_optuna_is_told_of_failure_not_of_a_lucky_mean(server):
    """At the lower temperatures all rows but one fail, and that one is right."""
    server.otherwise = lambda call: (
        Status(400, "no such image")
        if call.body["temperature"] < 0.85 and "is 0" not in call.question
        else Reply("ok" if "is 0" in call.question else "no")
    )
    searched = ["sampling.temperature=range(0.7,1,0.1)", "hydra/sweeper/sampler=grid", "cache.mode=off"]
    result = sweep(served(server, *OPTUNA, *searched))
    assert {row["sampling.temperature"]: row["score.exact"] for row in result.rows} == {0.7: 1.0, 0.8: 1.0, 0.9: 0.25}
    assert [row["standing"] for row in result.rows] == ["best", "partial", "partial"]
    server.otherwise = Status(400, "no such image")
    failed = sweep(served(server, *OPTUNA, *searched, "sampling.max_tokens=7"))
    assert (failed.manifest.status, failed.manifest.problem) == ("failed", None)
    found = sweep(served(server, *OPTUNA, "sampling.temperature=range(0.7,1,0.1)", "cache.mode=off", "sampling.top_p=0.3"))
    assert found.manifest.status == "failed"


def test_optuna_follows_the_direction_of_the_sweep(server):
    server.otherwise = hot
    result = sweep(served(server, *OPTUNA, "sweep.direction=minimize"))
    assert (
        f"best_value: {min(row['score.exact'] for row in result.rows)}"
        in (result.folder / "optimization_results.yaml").read_text()
    )
    with pytest.raises(ConfigError, match=r"is set by sweep.direction"):
        sweep(served(server, *OPTUNA, "hydra.sweeper.direction=minimize"))


def test_optuna_searches_the_grid_of_the_section_and_passes_over_failed_cells(server):
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text(
        "# @package _global_\nsweep: {grid: {sampling.top_p: [0.5, 0.9], sampling.temperature: {interval: [0, 1]}}}\n"
    )
    server.otherwise = lambda call: Status(400, "no") if call.body["top_p"] == 0.5 else Reply()
    result = sweep(
        served(
            server,
            "experiment=mine",
            "hydra/sweeper=optuna",
            "hydra.sweeper.n_trials=6",
            "sweep.concurrency=1",
            "hydra.sweeper.n_jobs=1",
        )
    )
    assert result.manifest.keys == ["sampling.top_p", "sampling.temperature"]
    assert statuses(result)["complete"] + statuses(result)["failed"] == 6
    assert set(statuses(result)) == {"complete", "failed"}


def test_a_cell_whose_parameters_are_refused_closes_the_endpoint_for_no_other_cell(server):
    server.otherwise = lambda call: Status(400, "no") if call.body["top_p"] == 0.5 else Reply()
    result = sweep(served(server, "sampling.top_p=0.5,0.9", "sweep.concurrency=1"))
    assert [cell.status for cell in result.manifest.cells.values()] == ["failed", "complete"]


def test_optuna_reads_hydras_own_section(server):
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults: [override /hydra/sweeper: optuna]\n"
        "hydra: {sweeper: {n_trials: 4, params: {sampling.top_p: '0.5,0.9'}}}\n"
    )
    result = sweep(served(server, "experiment=mine"))
    assert (result.manifest.keys, result.manifest.status, result.manifest.sweeper) == (["sampling.top_p"], "complete", "optuna")


def test_a_spent_budget_stops_a_search(server):
    result = sweep(served(server, *OPTUNA, "budget.requests=6"))
    assert (result.exit_code, result.manifest.status, server.count) == (3, "incomplete", 6)
    again = sweep(served(server, *OPTUNA, "budget.requests=100"))
    assert (again.folder, again.manifest.status, server.count) == (result.folder, "complete", 5 * ROWS)
