"""Expectations of runs: read, judged, shown; stopping early; comments on pull requests; and the workflow that uses them."""

import json
import os
import random
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from runner.analysis.expectations import Expectation, Observed, judge, parse, rows_more, with_left_out
from runner.config.roles import config_hash
from runner.config.schema import RunConfig
from runner.config.schema.scoring import Expect
from runner.errors import ConfigError
from runner.records.outcome import Outcome, worst
from runner.scoring import summarise
from runner.stats.sequential import SequentialTest, sequence_interval
from runner.types import Sample, Score
from tests.support.command import REPOSITORY, ostinato
from tests.support.records import OFFLINE

SCORES = {"contains": True, "grade": False}


def right(hits, n):
    return {"contains": summarise([1.0] * hits + [0.0] * (n - hits))}


def verdict(text, scores, samples=(), cost=None):
    return judge(parse(text, SCORES), scores, Observed(samples), cost).verdict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("contains >= 0.8", Expectation("contains", ">=", 0.8)),
        ("contains>=80%", Expectation("contains", ">=", 0.8)),
        (" grade > 3 ", Expectation("grade", ">", 3.0)),
        ("grade <= -2.5e1", Expectation("grade", "<=", -25.0)),
        ("latency_p95_s < .5", Expectation("latency_p95_s", "<", 0.5)),
        ("invalid <= 2%", Expectation("invalid", "<=", 0.02)),
        ("cost_usd <= 0", Expectation("cost_usd", "<=", 0.0)),
    ],
)
def test_expressions_are_read(text, expected):
    assert parse(text, SCORES) == expected
    assert parse(str(expected), SCORES) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("contains", "'contains' is not an expectation; write a name, a sign and a number"),
        ("contains == 0.8", "is not an expectation"),
        ("contains >= high", "is not an expectation"),
        ("contains >= 0.8 0.9", "is not an expectation"),
        ("", "is not an expectation"),
        ("contain >= 0.8", "there is no score 'contain'; did you mean 'contains'?"),
        ("contains >= 80", "contains is between 0 and 1; did you mean 80%?"),
        ("contains >= -0.1", "cannot tell anything"),
        ("contains > 1", "cannot tell anything"),
        ("contains < 0", "cannot tell anything"),
        ("invalid <= 200%", "cannot tell anything"),
        ("latency_p95_s < -1", "latency_p95_s is 0 or more"),
        ("grade >= 1e999", "cannot tell anything"),
    ],
)
def test_what_cannot_be_expected_is_refused(text, told):
    with pytest.raises(ConfigError) as error:
        parse(text, SCORES)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("text", "hits", "n", "expected"),
    [
        ("contains >= 0.8", 58, 60, "pass"),
        ("contains >= 0.8", 48, 60, "undecided"),
        ("contains >= 0.8", 30, 60, "fail"),
        ("contains <= 0.1", 0, 60, "pass"),
        ("contains < 0.1", 30, 60, "fail"),
        ("contains >= 0.8", 3, 3, "undecided"),
        ("contains >= 1", 60, 60, "pass"),  # the end of the scale: about the rows of this run
        ("contains >= 1", 59, 60, "fail"),
        ("contains <= 0", 0, 60, "pass"),
        ("contains <= 0", 1, 60, "fail"),
        ("contains >= 0.5", 0, 0, "undecided"),
    ],
)
def test_verdicts_are_by_the_bounds_of_the_interval(text, hits, n, expected):
    assert verdict(text, right(hits, n)) == expected


def test_scores_beyond_0_and_1_are_judged_by_their_interval():
    scores = {"grade": summarise([4.0, 5.0, 4.5, 4.0, 5.0] * 4)}
    assert verdict("grade >= 4", scores) == "pass"
    assert verdict("grade >= 4.5", scores) == "undecided"
    assert verdict("grade < 4", scores) == "fail"
    assert verdict("grade >= 4", {"grade": summarise([5.0])}) == "undecided"


def samples(count, **fields):
    return [Sample(id=f"r{index}", **fields) for index in range(count)]


def test_shares_cost_and_latency_are_judged():
    some = [*samples(57, latency_s=0.5), *samples(3, status="invalid", latency_s=9.0)]
    some = [Sample(id=f"r{index}", status=one.status, latency_s=one.latency_s) for index, one in enumerate(some)]
    assert verdict("invalid <= 20%", {}, some) == "pass"
    assert verdict("invalid <= 5%", {}, some) == "undecided"
    assert verdict("invalid <= 0", {}, some) == "fail"
    assert verdict("errors <= 0", {}, some) == "pass"
    assert verdict("latency_p50_s <= 1", {}, some) == "pass"
    assert verdict("latency_p50_s >= 1", {}, some) == "fail"
    assert verdict("latency_p95_s <= 1", {}, some) == "undecided"
    assert verdict("latency_p95_s <= 0.1", {}, some) == "fail"
    assert verdict("latency_p95_s <= 1", {}, samples(60, latency_s=0.1, cache="hit")) == "undecided"
    assert [verdict("cost_usd <= 1", {}, cost=cost) for cost in (0.5, 1.0, 1.5, None)] == ["pass", "pass", "fail", "undecided"]


@pytest.mark.parametrize(
    ("text", "hits", "left_out", "expected"),
    [
        ("contains >= 0.8", 60, 0, "pass"),
        ("contains >= 0.8", 60, 5, "pass"),
        ("contains >= 0.8", 60, 30, "undecided"),
        ("contains >= 0.8", 0, 30, "fail"),
        ("contains >= 0.8", 0, 300, "undecided"),
        ("contains <= 0.1", 0, 1, "pass"),
        ("contains <= 0.1", 0, 30, "undecided"),
        ("contains <= 0.1", 60, 30, "fail"),
    ],
)
def test_what_was_left_out_may_turn_a_verdict(text, hits, left_out, expected):
    one = parse(text, SCORES)
    found = with_left_out(one, judge(one, right(hits, 60), Observed(()), None), left_out, 60 + left_out)
    assert found.verdict == expected
    assert ("could turn it" in str(found)) == (expected == "undecided")


def test_about_how_many_more_rows_would_decide():
    found = right(52, 60)["contains"]
    one = parse("contains >= 0.8", SCORES)
    more = rows_more(one, found)
    whole = 60 + more
    assert verdict("contains >= 0.8", right(round(52 / 60 * whole * 1.02), whole)) == "pass"
    assert verdict("contains >= 0.8", right(round(52 / 60 * whole / 2), whole // 2)) == "undecided"
    assert rows_more(one, right(48, 60)["contains"]) is None  # the mean is the threshold
    assert f"about {more} more rows would" in str(judge(one, {"contains": found}, Observed(()), None))


def test_the_worst_outcome_counts():
    outcomes = {name: Outcome("x >= 1", name, 1.0) for name in ("pass", "undecided", "fail")}
    assert worst([]) is None
    assert worst([outcomes["pass"], outcomes["undecided"]]) == "undecided"
    assert worst([outcomes["undecided"], outcomes["fail"], outcomes["pass"]]) == "fail"


# --- the command


ROWS = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=exact"]


@pytest.fixture
def run(in_tmp):
    def write(count=60):
        wanted = ("exact >= 1", ["exact >= 0.5"], {"exact": 1}, None)
        lines = [{"id": f"r{n}", "question": f"q{n}", "answer": "yes", "expected": wanted[n % 4]} for n in range(count)]
        Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    write()
    return lambda *words, reply="yes": ostinato("run", *OFFLINE, f"model.reply={reply}", *ROWS, *words)


@pytest.mark.parametrize(
    ("expected", "code", "told"),
    [
        ("exact >= 0.9", 0, "pass: 1.000 [0.940, 1.000] (n=60)"),
        ("exact <= 0.5", 100, "fail: 1.000 [0.940, 1.000] (n=60)"),
        ("exact >= 0.99", 3, "undecided: 1.000 [0.940, 1.000] (n=60), too few rows to tell: about"),
    ],
)
def test_exit_codes_of_the_three_outcomes(run, expected, code, told):
    done = run("--expect", expected, "--expect", "errors <= 10%", "--json")
    assert done.code == code
    outcome, errors = done.json["expectations"]
    assert str(Outcome(**{**outcome, "interval": tuple(outcome["interval"])})).startswith(told)
    assert (outcome["expected"], errors["verdict"]) == (expected, "pass")
    shown = ostinato("show", "latest")
    assert f"expected {expected}" in shown.out


def test_expectations_of_the_command_line_are_added_to_those_of_the_config(run):
    done = run("expect.that=['exact >= 0.5']", "--expect", "errors <= '10%'".replace("'", ""), "--json")
    assert [one["expected"] for one in done.json["expectations"]] == ["exact >= 0.5", "errors <= 0.1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--expect", "exakt >= 0.5"], "expect.that: there is no score 'exakt'; did you mean 'exact'?"),
        (["--expect", "it's good"], "is not an expectation"),
        (["--expect", "rows >= 90%"], "expect.rows=COLUMN"),
        (["expect.rows=wanted"], "expect.rows: row 'r0' has no column 'wanted'"),
        (["expect.rows=question"], "expect.rows: row 'r0': 'q0' is not an expectation"),
        (["expect.stop_early=true"], "expect.stop_early: there is nothing to decide early"),
        (["expect.stop_early=true", "--expect", "exact >= 0.5"], "add data.shuffle=true"),
        (["expect.stop_early=true", "data.shuffle=true", "data.cluster=id", "--expect", "exact >= 0.5"], "data.cluster is set"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_asked(run, words, told):
    done = run(*words)
    assert (done.code in (1, 2), done.err.count("\n"), done.out) == (True, 1, "")
    assert told in done.err
    assert not Path("runs").exists()


def test_rows_have_expectations_of_their_own(run):
    assert run("expect.rows=expected").code == 0
    done = run("expect.rows=expected", "--json", reply="no")
    (outcome,) = done.json["expectations"]
    assert (done.code, outcome["expected"], outcome["verdict"], outcome["value"], outcome["n"]) == (
        100,
        "rows >= 1",
        "fail",
        0.0,
        45,
    )
    found = [json.loads(line) for line in (Path(done.json["run"]) / "samples.jsonl").read_text().splitlines()]
    assert {tuple(one["unmet"]) if "unmet" in one else None for one in found} == {("exact >= 1: 0",), ("exact >= 0.5: 0",), None}
    share = run("expect.rows=expected", "--expect", "rows <= 50%", "--json", reply="no")
    assert (share.code, len(share.json["expectations"])) == (0, 1)


def test_junit_has_a_case_for_each_expectation_and_for_each_row(run):
    run("expect.rows=expected", "--expect", "exact >= 0.5", "--expect", "exact <= 0.01", reply="no")
    tree = ET.fromstring(ostinato("export", "latest", "--to", "junit").out.encode())
    suite = tree.find("testsuite")
    cases = {case.get("name"): case for case in suite}
    assert (
        cases["expect exact >= 0.5"].find("failure").get("type"),
        cases["expect exact <= 0.01"].find("error").get("type"),
    ) == (
        "fail",
        "undecided",
    )
    assert cases["r0"].find("failure").get("message") == "not met: exact >= 1: 0"
    assert (suite.get("tests"), suite.get("errors")) == ("63", "1")
    assert int(suite.get("failures")) == len(suite.findall(".//failure"))


def test_sweeps_fail_with_their_cells(run):
    assert run("-m", "model.reply=yes,no", "--expect", "exact >= 0.5").code == 100
    assert run("-m", "sampling.seed=1,2", "--expect", "exact >= 0.5").code == 0


def test_expectations_do_not_rename_a_run():
    assert config_hash(RunConfig()) == config_hash(RunConfig(expect=Expect(that=["exact >= 0.5"], stop_early=True)))


def test_refusals_may_turn_a_verdict(run):
    fails = ["model.fail_rate=0.4", "model.fail_with=content_filter", "cache.mode=off"]
    done = run(*fails, "--expect", "exact >= 0.8", "--json")
    (outcome,) = done.json["expectations"]
    assert (done.code, outcome["verdict"], done.json["refused"] > 10) == (3, "undecided", True)
    assert run(*fails, "scoring.refused=zero", "--expect", "exact >= 0.8").code == 100


def test_scoring_again_judges_again(run):
    run("--expect", "exact >= 0.9")
    again = ostinato("score", "latest", "expect.that=['exact <= 0.5']", "--json")
    assert [one["verdict"] for one in again.json["expectations"]] == ["fail"]
    other = ostinato("score", "latest", "scoring=f1")
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "expect.that: there is no score 'exact'" in other.err
    assert (
        ostinato("score", "latest", "scoring=f1", "expect.that=['f1 >= 0.9']", "--json").json["expectations"][0]["verdict"]
        == "pass"
    )


# --- stopping early


def test_a_run_stops_when_the_verdict_is_certain_and_resumes(run):
    done = run("data.shuffle=true", "expect.stop_early=true", "--expect", "exact >= 0.8", "cache.mode=off", "--json")
    summary = done.json
    assert (done.code, summary["stopped_early"], summary["expectations"][0]["verdict"]) == (0, True, "pass")
    assert 10 < summary["ok"] < 60
    assert summary["owed"] == 60 - summary["ok"]
    assert "expect.stop_early=false" in done.err
    again = ostinato("resume", "latest", "--json")
    assert (again.code, again.json["ok"]) == (0, summary["ok"])  # nothing more is asked
    rest = ostinato("resume", "latest", "expect.stop_early=false", "--json")
    assert (rest.code, rest.json["ok"], rest.json["stopped_early"], rest.json["owed"]) == (0, 60, False, 0)


def test_a_run_that_certainly_fails_stops_too(run):
    done = run("data.shuffle=true", "expect.stop_early=true", "--expect", "exact >= 0.8", "cache.mode=off", "--json", reply="no")
    assert (done.code, done.json["stopped_early"]) == (100, True)
    every = run("data.shuffle=true", "expect.stop_early=true", "--expect", "exact >= 1", "cache.mode=off", "--json", reply="no")
    assert (every.code, every.json["ok"] < 60) == (100, True)


def test_looking_after_every_row_keeps_the_error_rate():
    rng = random.Random(7)
    wrong = 0
    for _ in range(300):
        test = SequentialTest(0.8)
        for _ in range(300):
            test.add(float(rng.random() < 0.8))
        wrong += test.above or test.below
    assert wrong / 300 < 0.05


def test_a_sequential_test_decides_what_is_clear():
    for share, above in ((0.95, True), (0.6, False)):
        rng = random.Random(1)
        test = SequentialTest(0.8)
        while not (test.above or test.below):
            test.add(float(rng.random() < share))
        assert (test.above, test.n < 400) == (above, True)
    for threshold, score in ((0.0, 0.0), (1.0, 1.0)):
        test = SequentialTest(threshold)
        for _ in range(50):
            test.add(score)
        assert (test.above, test.below) == (False, False)


def test_the_interval_of_a_sequence_excludes_what_its_tests_exclude():
    rng = random.Random(3)
    scores = [float(rng.random() < 0.8) for _ in range(300)]
    low, high = sequence_interval(scores)
    fixed = summarise(scores).interval
    assert 0 < low < fixed[0] < fixed[1] < high < 1
    for threshold, above in ((low - 0.01, True), (high + 0.01, False)):
        test = SequentialTest(threshold)
        for score in scores:
            test.add(score)
        assert (test.above, test.below) == (above, not above)


# --- comments and the workflow


def test_a_comment_has_verdicts_expectations_and_flips_and_no_markup_of_answers(run):
    run("name=reference")
    run("name=candidate", "--expect", "exact >= 0.5", reply='"<b>no|*x* @you</b>"')
    text = ostinato("compare", "reference", "candidate", "--markdown", "--rows", "2").out
    assert "- exact: **worse**, -1.000 [-1.000, -0." in text
    assert "| exact &gt;= 0.5 | fail: 0.000 \\[0.000, 0.060\\] (n=60) |" in text
    assert "<details><summary>2 of 60 changed answers</summary>" in text
    assert "&lt;b&gt;no\\|\\*x\\* &#64;you&lt;/b&gt;" in text


def test_the_workflow_runs_as_it_is_written(in_tmp):
    """Every step with our command is run by bash, as on the runner; `gh` is a stand-in that keeps what it is given."""
    job = yaml.safe_load((REPOSITORY / ".github/workflows/evaluate.yml").read_text())
    steps = [step for step in job["jobs"]["evaluate"]["steps"] if "ostinato" in step.get("run", "")]
    assert [step["name"] for step in steps] == ["Play the reference", "Play the candidate, with what it has to reach", "Comment"]
    Path("bin").mkdir()
    for name, text in (("gh", 'echo "$@" > gh.txt'), ("ostinato", f'exec "{sys.executable}" -m runner "$@"')):
        (Path("bin") / name).write_text(f"#!/bin/sh\n{text}\n")
        (Path("bin") / name).chmod(0o755)
    place = {"PATH": f"{Path('bin').absolute()}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY), "PULL_REQUEST": "7"}
    for step in steps:
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            env={**os.environ, **job["env"], **place},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert Path("gh.txt").read_text().startswith("pr comment 7 --body-file comment.md")
    assert "### candidate/" in Path("comment.md").read_text()
    assert "expect regex &gt;= 0.9" in Path("results.xml").read_text()


def test_outcomes_without_a_number_say_why():
    assert str(Outcome("cost_usd <= 1", "undecided", None, note="the cost is unknown")) == "undecided: –, the cost is unknown"
    assert Score(None, None, 0).interval is None
