"""`runner.load`: records as Python objects, and as data frames."""

import csv
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

import runner
from runner.analysis.frames import to_pandas, to_polars
from runner.analysis.load import Run, Sweep
from runner.errors import ConfigError, RecordError
from runner.reports import render
from runner.reports.cells import HEADS
from runner.sweeps.run import sweep as sweep_of
from runner.types import RowError, Sample, Usage
from runner.wording.numbers import seconds
from runner.wording.statuses import COUNTS
from tests.support.records import OFFLINE, play, record, sweep

pytestmark = pytest.mark.usefixtures("in_tmp")


def test_runs_are_loaded_by_folder_name_or_latest():
    folder = play("data.limit=5")
    for name in (folder, str(folder), "latest", "capitals", f"capitals/{folder.name}"):
        run = runner.load(name)
        assert isinstance(run, Run)
        assert run.folder == folder
    assert (run.name, run.rows, run.primary) == (f"capitals/{folder.name}", 5, "contains")
    assert run.summary.rows == 5
    assert run.config["data"]["limit"] == 5
    assert run.manifest["status"] == "complete"
    assert [sample.id for sample in run.samples()] == ["france", "germany", "italy", "spain", "japan"]
    assert len(list(run.samples())) == 5
    with pytest.raises(RecordError, match="no run matches 'nowhere'"):
        runner.load("nowhere")


def test_runs_are_loaded_from_another_runs_dir():
    folder = play("runs_dir=elsewhere")
    assert runner.load("latest", runs_dir="elsewhere").folder == folder
    with pytest.raises(RecordError, match="there are no runs in runs"):
        runner.load("latest")


def test_a_run_that_is_being_played_has_no_summary():
    folder = record("runs", [Sample(id="a", scores={"hit": 1.0}), Sample(id="b", scores={"hit": 0.0, "late": 1.0})])
    run = runner.load(folder)
    assert (run.summary, run.primary, run.rows, run.config) == (None, None, None, {})
    assert run.to_polars().select("score.hit", "score.late").rows() == [(1.0, None), (0.0, 1.0)]


def test_frames_have_one_row_per_sample():
    folder = play("data.limit=4", "sampling.repeats=2", "sampling.temperature=1")
    run = runner.load(folder)
    samples = list(run.samples())
    for frame in (run.to_polars(), run.to_pandas()):
        assert frame.shape[0] == 8
        assert list(frame["id"]) == [sample.id for sample in samples]
        assert list(frame["repeat"]) == [0, 1] * 4
        assert list(frame["score.contains"]) == [sample.scores["contains"] for sample in samples]
        assert list(frame["usage.prompt_tokens"]) == [sample.usage.prompt_tokens for sample in samples]
        assert json.loads(frame["messages"][0]) == samples[0].messages
    assert isinstance(run.to_pandas(), pd.DataFrame)
    assert float(run.to_pandas().groupby("id")["score.contains"].mean().mean()) == run.summary.scores["contains"].mean


def test_column_types_do_not_depend_on_missing_values():
    """Tables of several runs can be concatenated."""
    nothing = record("one", [Sample(id="a", error=RowError("timeout", "late"), status="error")])
    all_of_it = record(
        "two",
        [
            Sample(
                id="a",
                output="x",
                scores={"hit": 1.0},
                usage=Usage(1, 2, 3),
                cost_usd=0.1,
                saved_usd=0.0,
                latency_s=1.0,
                target="3",
            )
        ],
    )
    frames = [runner.load(folder).to_polars() for folder in (nothing, all_of_it)]
    assert pl.concat(frames, how="diagonal").shape[0] == 2
    assert frames[0].schema["cost_usd"] == frames[1].schema["cost_usd"] == pl.Float64
    assert frames[0].schema["usage.prompt_tokens"] == frames[1].schema["usage.prompt_tokens"] == pl.Int64
    assert frames[0]["error.code"][0] == "timeout"
    assert frames[1]["target"][0] == "3"


@pytest.mark.parametrize("frame", [lambda rows: to_polars(rows).to_dicts(), lambda rows: to_pandas(rows).to_dict("records")])
def test_columns_of_mixed_types_are_text(frame):
    rows = [{"a": 1, "b": [1, "x"], "c": True, "d": 2**70}, {"a": 2.5, "b": "plain", "c": False, "d": 1}]
    assert frame(iter(rows)) == [
        {"a": 1.0, "b": '[1,"x"]', "c": True, "d": str(2**70)},
        {"a": 2.5, "b": "plain", "c": False, "d": "1"},
    ]


def test_columns_that_rows_lack_are_filled_with_none():
    frame = to_polars([{"a": 1}, {"a": None, "b": "x"}, {}])
    assert frame.rows() == [(1, None), (None, "x"), (None, None)]
    assert to_pandas([{"a": 1}, {"a": None}])["a"].dtype == "Int64"
    assert to_polars([]).shape == (0, 0)


@pytest.mark.parametrize(("name", "install"), [("polars", r"pip install 'ostinato\[tables\]'"), ("pandas", "pip install pandas")])
def test_packages_that_are_not_installed_are_named(monkeypatch, name, install):
    run = runner.load(play("data.limit=1"))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=f"this needs {name}, which is not installed: {install}"):
        getattr(run, f"to_{name}")()


def test_loading_imports_no_data_frame_library():
    play("data.limit=1")
    check = "import sys, runner; runner.load('latest').summary; assert not {'polars', 'pandas', 'hydra'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(runner.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr


def test_a_sweep_has_one_row_per_cell():
    cold, hot = play("data.limit=5"), play("data.limit=5", "sampling.temperature=1.0")
    folder = sweep(
        [({"sampling.temperature": 9.0}, None), ({"sampling.temperature": 0.0}, cold), ({"sampling.temperature": 1.0}, hot)]
    )
    found = runner.load(folder)
    assert isinstance(found, Sweep)
    assert (found.folder, found.keys, found.primary) == (folder, ["sampling.temperature"], "contains")
    failed, first, second = found.cells
    assert (failed.run, failed.status, failed.problem) == (None, "failed", "no such model")
    assert first.values == {"sampling.temperature": 0.0}  # noqa: PD011 - no frame
    assert first.run.folder == folder / "cells" / cold.name
    assert second.run.name == f"{folder.name}/{hot.name}"
    for frame in (found.to_polars(), found.to_pandas()):
        assert frame.shape[0] == 3
        assert list(frame["sampling.temperature"]) == [9.0, 0.0, 1.0]
        assert list(frame["cell"]) == [cell.id for cell in found.cells]
        assert list(frame["status"]) == ["failed", "complete", "complete"]
    row = found.to_polars().row(1, named=True)
    score = first.run.summary.scores["contains"]
    assert (row["score.contains"], row["score.contains.stderr"], row["score.contains.n"]) == (score.mean, score.stderr, 5)
    assert (row["ok"], row["prompt_tokens"]) == (5, first.run.summary.usage.prompt_tokens)
    assert 0 <= row["latency_p50_s"] <= row["latency_p95_s"]


def test_a_broken_manifest_of_a_sweep_is_an_error():
    folder = sweep([], keys=None)
    with pytest.raises(RecordError, match="is not a sweep's"):
        runner.load(folder)


def test_every_table_of_a_sweep_has_the_same_columns_and_numbers():
    """Compare ``table.csv``, `runner.load(...).table()`, the terminal's and Prefect's rows, and the page's table of cells."""
    varied = ["sampling.temperature=0,1", "sampling.repeats=1,2"]
    result = sweep_of([*OFFLINE, "data.limit=6", "model.fail_rate=0.3", "model.fail_with=context_window", *varied])
    table = list(runner.load(result.folder).table())
    assert [row["n"] for row in table] == [6, 12, 6, 12]
    assert sum(row["errors"] for row in table) > 0
    columns = list(table[0])
    with (result.folder / "table.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    texts = {name for row in table for name, value in row.items() if isinstance(value, str)}
    assert [{name: read(text, name in texts) for name, text in row.items()} for row in written] == table
    by_id = {row["cell"]: row for row in table}
    for row in result.rows:
        assert list(row) == [*columns, "best", "tied"]
        assert {name: row[name] for name in columns} == by_id[row["cell"]]
    heads, lines = cells_on(render(result.folder))
    assert set(HEADS) < set(columns)
    counts = ["scored", *(COUNTS[name] for name in ("errors", "owed") if any(row[name] for row in table))]
    common = [head for head in heads if head.endswith(" rows in common")]
    head = ["cell", "sampling.temperature", "sampling.repeats", "contains", "95 %", *common, "standing", "status", "n", *counts]
    assert heads == [*head, *HEADS.values()]
    numbered = {f"#{number}": row for number, row in enumerate(table, 1)}
    for cell, *values in lines:
        row = numbered[cell]
        told = dict(zip(heads[1:], values, strict=True))
        assert all(told[key] == str(row[key]) for key in ("sampling.temperature", "sampling.repeats"))
        assert (told["contains"], told["95 %"]) == (
            f"{row['score.contains']:.3f}",
            f"[{row['score.contains.low']:.3f}, {row['score.contains.high']:.3f}]",
        )
        assert told["standing"].partition(",")[0] == (row["standing"] or "–")
        assert (told["status"], told["n"], told["errors"]) == (row["status"], str(row["n"]), str(row["errors"]))
        assert told["scored"] == str(row["scored"])
        assert (told["p50"], told["p95"]) == (seconds(row["latency_p50_s"]), seconds(row["latency_p95_s"]))


def read(text, is_text):
    """Read a field of ``table.csv``; numbers are read, because JSON writes 9e-05 in two ways."""
    return None if text == "" else text if is_text else json.loads(text)


def cells_on(page):
    """Return the headings and the rows of the page's table of cells."""
    table = re.search(r'<table class="cells">.*?</table>', page, re.DOTALL)[0]
    heads, *lines = (
        [html.unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall("<t[hd].*?</t[hd]>", row)]
        for row in re.findall("<tr>.*?</tr>", table)
    )
    return heads, lines


def test_a_varied_model_is_in_the_tables_as_written():
    folder = sweep([({"model": "small"}, play("data.limit=1")), ({"model": "large"}, None)], keys=["model"])
    assert [row["model"] for row in runner.load(folder).table()] == ["small", "large"]


def test_a_cell_whose_folder_is_gone_has_a_problem():
    values = [{"sampling.temperature": 0.0}, {"sampling.temperature": 1.0}]
    folder = sweep([(one, play("data.limit=2")) for one in values])
    gone, there = runner.load(folder).cells
    (gone.run.folder / "manifest.json").unlink()
    rows = list(runner.load(folder).table())
    assert [(row["n"], row["problem"] is None) for row in rows] == [(None, False), (2, True)]
    assert there.run.name == rows[1]["run"]
