"""Runs are found again by tags and filters, their configs are compared, and exports overwrite nothing unasked."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path

import pytest

import runner
from tests.support.command import ostinato
from tests.support.records import play

pytestmark = pytest.mark.usefixtures("in_tmp")

FAKE = ["model=fake", "execution.orchestrator=none", "data.limit=1"]


def listed(*filters):
    done = ostinato("ls", "--json", *filters)
    assert done.code == 0, done.err
    return [
        run["run"].split("/")[1]
        for kind in ("runs", "sweeps")
        for run in done.json[kind]
        if (run.setdefault("run", run.get("sweep")))
    ]


def test_ls_filters_by_name_model_status_tag_and_time():
    assert ostinato("run", *FAKE, "name=one", "--tag", "base", "--tag", "v1.2", "--tag", "base").code == 0
    assert ostinato("run", *FAKE, "name=two", "model.name=other/name", "budget.requests=0").code == 3
    assert ostinato("run", "-m", *FAKE, "name=three", "sampling.seed=1,2", "--tag", "base").code == 0
    assert listed() == ["one", "two", "three"]
    assert listed("tag=base") == listed("tag=b*,none") == ["one", "three"]
    assert listed("tag=base", "tag=v1.2") == listed("experiment=o*") == ["one"]
    assert listed("model=name", "status=failed,incomplete", "since=2d") == ["two"]
    assert listed("since=2999-01-01") == []
    assert "#base  #v1.2" in ostinato("ls").out
    cells = sorted(Path("runs/three").glob("sweep-*/cells/*/manifest.json"))
    assert [json.loads(cell.read_text())["tags"] for cell in cells] == [["base"], ["base"]]
    for wrong, told in (("modl=x", "did you mean 'model'?"), ("since=soon", "give an age, such as 36h or 2d")):
        done = ostinato("ls", wrong)
        assert (done.code, told in done.err) == (2, True), done.err
    assert ostinato("run", *FAKE, "--tag", "two words").code == 2


def test_a_broken_run_does_not_hide_the_others():
    runner.run(overrides=[*FAKE, "name=one"])
    runner.run(overrides=[*FAKE, "name=two"])
    next(Path("runs/one").glob("2*/summary.json")).write_text("{")
    done = ostinato("ls", "--json")
    assert [run["status"] for run in done.json["runs"]] == ["unreadable", "complete"]
    assert "summary.json is broken" in done.err


def test_an_export_overwrites_nothing_unasked(monkeypatch):
    play("data.limit=1")
    Path("rows.csv").write_text("mine")
    refused = ostinato("export", "--to", "csv", "-o", "rows.csv")
    assert (refused.code, "overwrite it with --force" in refused.err) == (2, True)
    own = next(Path("runs").glob("*/2*/samples.jsonl"))
    before = own.read_bytes()
    refused = ostinato("export", "--to", "csv", "-o", str(own), "--force")
    assert (refused.code, "belongs to a record" in refused.err) == (1, True)
    assert (own.read_bytes(), Path("rows.csv").read_text()) == (before, "mine")
    leader, follower = pty.openpty()
    with os.fdopen(follower) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        os.write(leader, b"n\n")
        assert ostinato("export", "--to", "csv", "-o", "rows.csv").code == 2
        os.write(leader, b"y\n")
        asked = ostinato("export", "--to", "csv", "-o", "rows.csv")
    os.close(leader)
    assert (asked.code, "Overwrite it? [y/N]" in asked.err, Path("rows.csv").read_text() == "mine") == (0, True, False)
    assert ostinato("export", "--to", "csv", "-o", "rows.csv", "--force").code == 0
