"""`ostinato score` on a run of format 1, as an older version wrote it: scored by the rules of today, it says what has changed."""

import json

import pytest

import runner
from tests.support.command import ostinato
from tests.support.records import format_1

pytestmark = pytest.mark.usefixtures("in_tmp")

OLD = {"thousands": 0, "fraction": 0, "chinese": 0, "power": 0, "plain": 1, "wrong": 0, "date": 1, "cut": 1, "range": 1}
NEW = {"thousands": 1, "fraction": 1, "chinese": 1, "power": 1, "plain": 1, "wrong": 0, "date": 1, "cut": 0, "range": 0}


def scores(folder):
    return {sample.id: sample.scores["numeric"] for sample in runner.load(folder).samples()}


def test_a_run_of_format_1_is_scored_by_the_rules_of_today():
    folder = format_1()
    assert scores(folder) == OLD
    answers = {sample.id: sample.output for sample in runner.load(folder).samples()}
    done = ostinato("score", str(folder))
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "numeric: 0.444 -> 0.667 (4 up, 2 down)"
    assert scores(folder) == NEW
    assert {sample.id: sample.output for sample in runner.load(folder).samples()} == answers
    manifest, summary = (json.loads((folder / name).read_text()) for name in ("manifest.json", "summary.json"))
    assert (manifest["format"], summary["format"]) == (2, 2)
    assert summary["scores"]["numeric"]["interval"] is not None
    assert summary["requests"] == 9
    again = ostinato("score", str(folder), "--json")
    assert again.json["changes"] == {"numeric": {"before": 6 / 9, "after": 6 / 9, "up": 0, "down": 0, "gained": 0, "lost": 0}}
