"""Runs are found again by tags and filters, their configs are compared, and exports overwrite nothing unasked."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path

import pytest

import runner
from runner.errors import ConfigError
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


@pytest.mark.slow
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


def test_tags_are_given_from_python_too():
    runner.run(overrides=[*FAKE, "name=one"], tags=["base", "base"])
    runner.sweep([*FAKE, "name=two", "sampling.seed=1,2"], tags=["base"])
    runner.run(overrides=[*FAKE, "name=three"])
    assert listed("tag=base") == ["one", "two"]
    for wrong in ("base", ["two words"], ["sk-abcdefghijklmnopqrstuvwxyz012345"]):
        with pytest.raises(ConfigError, match="tags ") as told:
            runner.run(overrides=FAKE, tags=wrong)
        assert "abcdefghij" not in str(told.value)


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


def test_diff_shows_the_keys_in_which_two_runs_differ(monkeypatch):
    one = runner.run(overrides=[*FAKE, "name=one", "sampling.temperature=0.5"]).folder
    runner.run(overrides=[*FAKE, "name=two", "prompt.system=Be brief", "data.limit=2"])
    told = ostinato("diff", "one", "two", "--json").json
    assert told["a"] == str(one.relative_to(Path.cwd()))
    assert {entry["key"]: (entry["a"], entry["b"]) for entry in told["differences"] if entry["key"] != "rows"} == {
        "name": ("one", "two"),
        "sampling.temperature": (0.5, 0.0),
        "prompt.system": (None, "Be brief"),
        "data.limit": (1, 2),
    }
    assert ostinato("diff", "one", "one").out.splitlines()[-1] == "the configs are the same"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[32m+ Be brief" in ostinato("diff", "one", "two").out


def test_repeated_rows_and_leaked_examples_are_remarked_on():
    rows = [(1, "Who?"), (2, "Where?"), ("3", "Who?"), (4, "Who?")]
    Path("rows.jsonl").write_text("".join(json.dumps({"id": row, "question": text}) + "\n" for row, text in rows))
    example = "prompt.examples=[{user: 'Ask:  where?', assistant: here}]"
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "prompt.user='Ask: {{ question }}'", "scoring=none", example]
    said = ostinato("validate", "model=fake", *data, "--json").json["remarks"]
    assert said[:2] == [
        "2 rows have the content of an earlier one, under another id",
        "prompt.examples show the answer of 1 row that is asked: '2'",
    ]


def test_numbers_mean_the_same_in_a_file_as_in_an_override():
    folder = Path("conf/experiment")
    folder.mkdir(parents=True)
    (folder / "big.yaml").write_text(
        "# @package _global_\nbudget: {tokens: 1_000}\nsampling: {max_tokens: 2_000}\nlimits: {timeout_s: 1_0.5}\n"
    )
    given = ostinato("run", "experiment=big", "--cfg", "job", "--resolve").out
    same = ostinato(
        "run", "budget.tokens=1_000", "sampling.max_tokens=2_000", "limits.timeout_s=1_0.5", "--cfg", "job", "--resolve"
    ).out
    assert given == same
    assert "tokens: 1000\n" in given


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (
            "limits.timeout_s",
            [
                "values   a number above 0",
                "default  120.0",
                "unit  seconds, or a number with one of ms, s, m",
                "role  may change when",
            ],
        ),
        (
            "model.price.prompt",
            ["litellm: prompt tokens; null: litellm's published price", "server: prompt tokens; null: unknown"],
        ),
        ("model", ["fake: Use a deterministic stand-in", "keys  api_base, "]),
        ("finetune.data.path", ["command, databricks, local, openai: file of JSON lines"]),
    ],
)
def test_explain_says_what_a_key_means(key, told):
    out = ostinato("explain", key).out
    assert [text for text in told if text not in out] == []


def test_explain_lists_the_runs_that_set_a_key():
    runner.run(overrides=[*FAKE, "name=one", "sampling.temperature=0.5"])
    runner.run(overrides=[*FAKE, "name=two"])
    told = ostinato("explain", "sampling.temperature", "--json").json
    assert [(run["run"].split("/")[1], run["value"]) for run in told["runs"]] == [("one", 0.5)]
    assert told["kinds"] == [{"kind": None, "means": "0 to 5", "values": "a number from 0 to 5, or null", "default": "0.0"}]
    wrong = ostinato("explain", "sampling.temprature")
    assert (wrong.code, "did you mean 'temperature'?" in wrong.err) == (2, True)


def test_every_key_is_explained():
    from runner.config.explained import explained
    from runner.config.schema import RunConfig

    keys = list(RunConfig.__struct_fields__)
    for key in keys:
        found = explained(key)
        assert all(kind.means for kind in found.kinds), key
        keys += [f"{key}.{name}" for name in found.keys if name != "kind" and "." not in key]
    assert len(keys) > 150
