"""`ostinato export`: other tools read back what was recorded."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runner
from runner.analysis.delimited import csv_lines, in_columns
from runner.analysis.export import export
from runner.analysis.junit import _attribute, _text
from runner.cli import main
from runner.types import Judgement, RowError, Sample, Usage
from tests.support.records import play, record, sweep

pytestmark = pytest.mark.usefixtures("in_tmp")

NASTY = 'a "quoted", text\nof <two> & lines\r\n\x00\x1b[31m ]]> \ud7ff € 🎻'
SECRET = "sk-proj-abcdefghijklmnopqrstuv"


def samples():
    asked = [{"role": "user", "content": NASTY}]
    return [
        Sample(
            id="right",
            messages=asked,
            output="yes",
            target="yes",
            scores={"hit": 1.0, "f1": 0.5},
            usage=Usage(1, 2, 3),
            latency_s=0.25,
        ),
        Sample(
            id="wrong", repeat=1, messages=asked, output=NASTY, target=["no", 2], scores={"hit": 0.0, "f1": 0.5}, latency_s=0.5
        ),
        Sample(id="failed", prompt="p", status="error", error=RowError("timeout", NASTY, 504)),
        Sample(id="refused", prompt="p", status="refused", output="", finish_reason="content_filter"),
        Sample(id="told", output=f"the key is {SECRET}, http://me@here", scores={"hit": -1.0}),
    ]


def exported(to, folder, **more):
    buffer = io.BytesIO()
    export(runner.load(folder), to, buffer, **more)
    return buffer.getvalue()


@pytest.fixture
def made():
    return record("runs", samples(), started_at="2026-11-24T08:00:00.000+00:00")


# --- csv


def test_csv_reads_back(made):
    rows = list(csv.DictReader(io.StringIO(exported("csv", made).decode(), newline="")))
    assert [row["id"] for row in rows] == ["right", "wrong", "failed", "refused", "told"]
    assert rows[1]["output"] == NASTY
    assert (rows[1]["repeat"], rows[1]["score.hit"], rows[1]["target"]) == ("1", "0.0", '["no",2]')
    assert (rows[2]["status"], rows[2]["error.code"], rows[2]["error.status"], rows[2]["score.hit"]) == (
        "error",
        "timeout",
        "504",
        "",
    )
    assert json.loads(rows[0]["messages"])[0]["content"] == NASTY


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "\t=1", "\r=1", "- a list"])
def test_no_csv_cell_is_a_formula(text):
    (row,) = csv.DictReader(io.StringIO("".join(csv_lines(in_columns([{"a": text}]), exact=False)), newline=""))
    assert row["a"] == f"'{text}"
    (row,) = csv.DictReader(io.StringIO("".join(csv_lines(in_columns([{"a": text}]), exact=True)), newline=""))
    assert row["a"] == text


@pytest.mark.parametrize("text", ["-5", "+1.5e3", "plain", "a=b", ""])
def test_numbers_and_plain_text_stay_as_they_are(text):
    (row,) = csv.DictReader(io.StringIO("".join(csv_lines(in_columns([{"a": text, "b": -1.5}]), exact=False)), newline=""))
    assert row == {"a": text, "b": "-1.5"}


def test_values_that_compare_as_equal_keep_their_own_text():
    part = {"mixed": [1, 1.0, True, 1], "same": [True] * 4, "none": [None] * 4, "some": [None, 0, 0.5, None], "text": ["a"] * 4}
    lines = "".join(csv_lines([part, part], exact=False)).splitlines()
    rows = ["1,true,,,a", "1.0,true,,0,a", "true,true,,0.5,a", "1,true,,,a"]
    assert lines == ["mixed,same,none,some,text", *rows, *rows]


def test_one_secret_in_many_samples_is_masked():
    asked = [{"role": "user", "content": f"use {SECRET}"}]
    some = [Sample(id=f"r{n}", messages=asked if n == 700 else [{"role": "user", "content": "-"}]) for n in range(1000)]
    some[900].judgements = {"judge": Judgement(reason=f"it says {SECRET}")}
    rows = list(csv.DictReader(io.StringIO(exported("csv", record("runs", some)).decode(), newline="")))
    assert (len(rows), rows[700]["messages"]) == (1000, '[{"role":"user","content":"use ***"}]')
    assert rows[900]["judgements"] == '{"judge":{"reason":"it says ***"}}'
    assert rows[0]["messages"] == '[{"role":"user","content":"-"}]'


@settings(max_examples=100)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1))
def test_any_text_reads_back_from_csv(texts):
    lines = "".join(csv_lines(in_columns([{"a": one, "b": other} for one, other in texts]), exact=True))
    assert [(row["a"], row["b"]) for row in csv.DictReader(io.StringIO(lines, newline=""))] == texts


# --- jsonl, parquet, md


def test_json_lines_are_the_flat_rows(made):
    rows = [json.loads(line) for line in exported("jsonl", made).decode().split("\n")[:-1]]
    assert (rows[0]["score.hit"], rows[0]["usage.total_tokens"], rows[0]["messages"][0]["role"]) == (1.0, 3, "user")
    assert (rows[1]["target"], rows[2]["score.hit"], rows[1]["output"]) == (["no", 2], None, NASTY)
    assert {tuple(row) for row in rows} == {tuple(rows[0])}


def test_parquet_reads_back(made):
    frame = pl.read_parquet(io.BytesIO(exported("parquet", made)))
    assert frame["score.hit"].to_list() == [1.0, 0.0, None, None, -1.0]
    assert frame["output"][1] == NASTY


def test_markdown_is_a_table_of_the_runs_numbers():
    folder = play("data.limit=6", "scoring=exact", "data.name='a|b*c'")
    head, rule, row = exported("md", folder).decode().splitlines()
    assert head.startswith("| run | model | status | exact | samples | errors |")
    assert re.fullmatch(r"\|( -+:? \|)+", rule)
    assert head.count("|") == rule.count("|") == len(re.findall(r"(?<!\\)\|", row))
    assert "| fake/fake | complete | 0.000 \\[0.000, 0.459\\] (n=6) | 6 | 0 |" in row


def test_formats_of_a_sweep_have_one_row_per_cell():
    folder = sweep([({"sampling.temperature": 9.0}, None), ({"sampling.temperature": 0.5}, play("data.limit=3"))])
    rows = list(csv.DictReader(io.StringIO(exported("csv", folder).decode(), newline="")))
    assert [(row["sampling.temperature"], row["status"], row["ok"]) for row in rows] == [
        ("9.0", "failed", ""),
        ("0.5", "complete", "3"),
    ]
    head, _, failed, done = exported("md", folder).decode().splitlines()
    assert head.startswith("| sampling.temperature | status | contains | standing | samples |")
    assert failed.startswith("| 9.0 | failed | – | – | – |")
    assert re.match(r"\| 0.5 \| complete \| [\d.]+ \\\[[\d.]+, [\d.]+\\\] \(n=3\) \| best \| 3 \|", done)
    suites = ET.fromstring(exported("junit", folder))
    assert [suite.get("tests") for suite in suites] == ["3"]
    assert suites.get("tests") == "3"


# --- junit


def test_junit_has_one_case_per_sample(made):
    root = ET.fromstring(exported("junit", made))
    (suite,) = root
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "time", "timestamp")} == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "time": "0.750",
        "timestamp": "2026-11-24T08:00:00",
    }
    problems = {case.get("name"): case.find("*") for case in suite}
    assert list(problems) == ["right", "wrong (repeat 1)", "failed", "refused", "told"]
    assert problems["right"].tag == "system-out"
    assert problems["failed"].tag == "error"
    assert (problems["failed"].get("type"), problems["refused"].tag, problems["refused"].get("type")) == (
        "timeout",
        "failure",
        "refused",
    )
    shown = NASTY.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert problems["failed"].get("message") == shown
    assert suite[1].find("system-out").text == f"user: {shown}\nanswer: {shown}\nhit: 0\nf1: 0.5"


def test_a_primary_score_of_zero_is_a_junit_failure():
    folder = play("model.reply=Paris", "data.limit=4")  # right for the first row only
    suite = ET.fromstring(exported("junit", folder))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "3", "0")
    assert [case.find("failure") is None for case in suite] == [True, False, False, False]
    assert suite[1].find("failure").get("message") == "contains is 0"
    assert suite[1].find("failure").text == "target: Berlin\nanswer: Paris"


ALLOWED = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "time", "skipped", "timestamp", "hostname", "id", "package", "file"},
    "testcase": {"name", "time", "classname", "group"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "system-out": set(),
}
INSIDE = {"testsuites": {"testsuite"}, "testsuite": {"testcase"}, "testcase": {"failure", "error", "system-out"}}


def test_junit_follows_the_schema_of_its_readers(made):
    """The elements and attributes of the schema that Jenkins validates with (junit-10.xsd of its xunit plugin)."""
    for element in ET.fromstring(exported("junit", made)).iter():
        assert set(element.attrib) <= ALLOWED[element.tag]
        assert {child.tag for child in element} <= INSIDE.get(element.tag, set())
        assert all(re.fullmatch(r"\d+", element.get(name, "0")) for name in ("tests", "failures", "errors"))
        assert re.fullmatch(r"\d+\.\d{3}", element.get("time", "0.000"))


@settings(max_examples=200)
@given(st.text())
def test_any_text_is_valid_xml(text):
    element = ET.fromstring(f"<a b={_attribute(text)}>{_text(text)}</a>")
    allowed = "".join(
        sign if re.match("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", sign) else "\ufffd" for sign in text
    )
    assert (element.text or "", element.get("b")) == (allowed, allowed)


# --- secrets, and the command


@pytest.mark.parametrize("to", ["csv", "jsonl", "junit"])
def test_exports_mask_secrets_and_stay_readable(made, to):
    text = exported(to, made).decode()
    assert SECRET not in text
    assert "the key is ***" in text
    if to == "jsonl":
        assert json.loads(text.splitlines()[-1])["output"] == "the key is ***, http://***@here"
    assert SECRET.encode() not in exported("parquet", made)


def test_the_command_writes_to_stdout_or_a_file(capfdbinary, in_tmp):
    play("data.limit=3")
    assert main(["export", "--to", "csv"]) == 0
    out = capfdbinary.readouterr().out
    assert out.count(b"\r\n") == 4
    assert main(["export", "latest", "--to", "csv", "-o", "rows.csv"]) == 0
    captured = capfdbinary.readouterr()
    assert (captured.out, captured.err) == (b"", b"written: rows.csv\n")
    assert (in_tmp / "rows.csv").read_bytes() == out
    assert main(["export", "capitals", "--to", "parquet", "-o", "rows.parquet"]) == 0
    assert pl.read_parquet(in_tmp / "rows.parquet").shape[0] == 3
    assert sorted(path.name for path in in_tmp.iterdir()) == ["rows.csv", "rows.parquet", "runs"]


def test_a_failed_export_leaves_the_old_file(capsys, in_tmp, monkeypatch):
    play("data.limit=1")
    assert main(["export", "--to", "md", "-o", "nowhere/x.md"]) == 1
    assert "nowhere/x.md cannot be written: No such file or directory" in capsys.readouterr().err
    (in_tmp / "file").touch()
    for place, why in ((".", "it is a folder"), ("file/x.md", "Not a directory")):
        assert main(["export", "--to", "md", "-o", place]) == 1
        assert why in capsys.readouterr().err
    (in_tmp / "file").unlink()
    (in_tmp / "rows.parquet").write_text("old")
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    assert main(["export", "--to", "parquet", "-o", "rows.parquet", "--force"]) == 2
    assert "needs polars" in capsys.readouterr().err
    assert (in_tmp / "rows.parquet").read_text() == "old"
    assert main(["export", "nothing", "--to", "md"]) == 1


def test_a_block_of_lines_that_were_all_replaced_is_passed_over():
    failed = [Sample(id=f"r{n}", status="error", error=RowError("server", "x" * 1000)) for n in range(600)]
    answered = [Sample(id=f"r{n}", output="yes") for n in range(600)]
    made = record("run", [*failed, *answered])
    rows = list(csv.DictReader(io.StringIO(exported("csv", made).decode())))
    assert [row["output"] for row in rows] == ["yes"] * 600
