"""What a run keeps of its answers: thinking, tool calls, several answers, log probabilities, refusals and empty answers."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

import runner
from runner.cli import main
from runner.config import yaml
from runner.config.roles import config_hash, identity_hash
from runner.config.schema import RunConfig
from runner.config.schema.model import ServerModel
from runner.config.schema.running import Limits
from runner.experiment.rescore import score
from runner.records import RunFolder
from runner.reproduction.pack import pack
from runner.reproduction.replay import replay
from runner.sweeps.plan import Plan
from runner.types import Choice
from tests.support.answers import CALL, TOKEN, body
from tests.support.server import Raw, Reply, Server

pytestmark = [pytest.mark.usefixtures("in_tmp"), pytest.mark.slow]

ANSWERS = {
    "plain": body(),
    "field": body({"reasoning_content": "2 + 2"}),
    "marks": body({"content": "<think>2 + 2, not 5</think>4"}),
    "unopened": body({"content": "2 + 2, not 5\n</think>\n\n4"}),
    "parts": body({"content": [{"type": "thinking", "thinking": "2 + 2"}, {"type": "text", "text": "4"}]}),
    "cut thinking": body({"content": "<think>2 + 2 = 4, or"}, "length"),
    "stopped thinking": body({"content": "<think>2 + 2 = 4, or"}, "stop"),
    "call": body({"content": None, "tool_calls": [CALL]}, "tool_calls"),
    "call and text": body({"content": "4", "tool_calls": [CALL]}, "tool_calls"),
    "two": body(choices=[{"index": i, "message": {"role": "assistant", "content": t}, "finish_reason": "stop"} for i, t in
                         enumerate(["4", "<think>so</think>5"])]),
    "logprobs": body(choice={"logprobs": {"content": [TOKEN]}}),
    "refusal": body({"content": None, "refusal": "I cannot."}),
    "filtered": body({"content": "4"}, "SAFETY"),
    "cut": body({"content": "4"}, "model_length"),
    "failed": body({"content": "4"}, "abort"),
    "new reason": body({"content": "4"}, "tired"),
    "empty": body({"content": ""}),
    "null": body({"content": None}),
}  # fmt: skip

STATUSES = {
    **dict.fromkeys(ANSWERS, "ok"),
    **dict.fromkeys(["cut thinking", "stopped thinking", "cut"], "truncated"),
    **dict.fromkeys(["refusal", "filtered"], "refused"),
    **dict.fromkeys(["empty", "null"], "empty"),
    "failed": "error",
}


def play(server, *more, names=ANSWERS):
    rows = [{"id": name, "question": name, "answer": "4"} for name in names]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=contains"]
    model = ["model=server", "model.name=test", f"model.api_base={server.url}", "execution.orchestrator=none"]
    return runner.run(overrides=[*model, *data, "limits.max_attempts=2", *more])


@pytest.fixture
def server():
    with Server(lambda call: Raw(json.dumps(ANSWERS[call.question]).encode())) as server:
        yield server


def by_id(result):
    return {sample.id: sample for sample in RunFolder.open(result.folder).samples()}


def test_the_record_has_what_each_answer_had(server, caplog):
    from runner.answers import warn_of_unknown

    warn_of_unknown.cache_clear()
    result = play(server, "+model.params.logprobs=true")
    found = by_id(result)
    assert {name: sample.status for name, sample in found.items()} == STATUSES
    thought = {name: sample.reasoning for name, sample in found.items() if sample.reasoning}
    assert thought == {
        **dict.fromkeys(["field", "parts"], "2 + 2"),
        **dict.fromkeys(["marks", "unopened"], "2 + 2, not 5"),
        **dict.fromkeys(["cut thinking", "stopped thinking"], "2 + 2 = 4, or"),
    }
    for name in ("plain", "field", "marks", "unopened", "parts"):
        assert found[name].output == "4"
    assert found["cut thinking"].output is found["stopped thinking"].output is None
    assert found["cut thinking"].scores == found["stopped thinking"].scores == {"contains": 0.0}  # thinking is not scored
    assert found["call"].tool_calls == found["call and text"].tool_calls == [CALL]
    assert json.loads(found["call"].output) == [CALL]
    assert found["call and text"].output == "4"
    assert found["two"].answers == [Choice("4", "stop"), Choice("5", "stop", reasoning="so")]
    assert found["logprobs"].logprobs == {"content": [TOKEN]}
    assert found["refusal"].output == "I cannot."
    assert (found["refusal"].scores, found["filtered"].scores) == ({}, {})
    assert (found["failed"].error.code, found["failed"].attempts) == ("server", 2)
    summary = result.summary
    assert (summary.empty, summary.truncated, summary.refused, summary.errors) == (2, 3, 2, 1)
    assert summary.ok + summary.empty + summary.truncated + summary.refused + summary.errors == summary.rows
    assert summary.unknown_endings == {"tired": 1}
    assert [record.args for record in caplog.records if "not known" in record.msg] == [("tired",)]
    assert {line["measure"]: line["value"] for line in summary.table()}["unknown endings"] == "1 (tired 1)"


def test_only_good_answers_are_asked_for_once(server):
    play(server)
    first = server.count
    play(server)
    again = {call.question for call in server.calls[first:]}
    assert again == {name for name, status in STATUSES.items() if status != "ok"}


def test_log_probabilities_are_kept_only_if_they_were_asked_for(server):
    assert by_id(play(server, names=["logprobs"]))["logprobs"].logprobs is None


def test_thinking_can_be_kept_in_the_text(server):
    found = by_id(play(server, "model.thinking=keep"))
    assert found["marks"].output == "<think>2 + 2, not 5</think>4"
    assert found["marks"].reasoning is None
    assert found["field"].reasoning == "2 + 2"
    assert found["stopped thinking"].status == "ok"


def test_answers_in_the_cache_are_parted_too(server):
    play(server, "model.thinking=keep", names=["marks"])
    found = by_id(play(server, names=["marks"]))["marks"]
    assert (found.cache, found.output, found.reasoning) == ("hit", "4", "2 + 2, not 5")
    assert server.count == 1


def test_thinking_is_neither_parsed_nor_sent_back():
    answers = iter(["<think>{no}</think>nothing", '<think>{"n": 2}</think>{"n": 1}'])
    schema = ["adapter=json", "adapter.schema={type: object, required: [n]}"]
    with Server(lambda _call: Reply(next(answers))) as server:
        sample = by_id(play(server, *schema, "scoring=none", names=["plain"]))["plain"]
    assert (sample.parsed, sample.status, sample.reasoning) == ({"n": 1}, "ok", '{"n": 2}')
    assert sample.messages[1] == {"role": "assistant", "content": "nothing"}


@pytest.mark.parametrize(("tries", "asked", "status"), [(0, 1, "empty"), (1, 2, "empty"), (2, 3, "ok"), (5, 3, "ok")])
def test_empty_answers_are_asked_again_as_often_as_configured(tries, asked, status):
    answers = iter(["", None, "4"])
    with Server(lambda _call: Reply(next(answers))) as server:
        result = play(server, f"limits.retry_empty={tries}", names=["plain"])
        assert server.count == asked
    sample = by_id(result)["plain"]
    assert (sample.status, sample.attempts, sample.usage.total_tokens) == (status, asked, 10 * asked)
    assert (result.summary.empty, result.summary.requests) == (status == "empty", asked)


# --- everything that reads a record


def read_everywhere(folder, capsys, tmp_path):
    """Use every reader of a run, and return what a capsule of it replays."""
    loaded = runner.load(folder)
    rows = list(loaded.table())
    assert len(rows) == len(list(loaded.samples()))
    assert {"reasoning", "tool_calls", "logprobs", "answers"} <= rows[0].keys()
    for to in ("csv", "jsonl", "md", "junit", "parquet"):
        assert main(["export", str(folder), "--to", to, "-o", str(tmp_path / f"out.{to}")]) == 0
    assert main(["show", str(folder), "--json"]) == 0
    assert main(["show", str(folder), "--rows", "20"]) == 0
    assert main(["report", str(folder)]) == 0
    assert runner.compare(loaded, runner.load(folder)).flips == []
    capsys.readouterr()
    return replay(pack(folder, tmp_path / "run.ostinato").file)


def test_every_reader_takes_such_a_record(server, capsys, tmp_path):
    result = play(server, "+model.params.logprobs=true")
    before = by_id(result)
    replayed = read_everywhere(result.folder, capsys, tmp_path)
    main(["show", str(result.folder), "--rows", "20"])
    assert "  thinking: 2 + 2, not 5\n  answer: 4" in capsys.readouterr().out
    assert replayed.identical
    assert replayed.outputs == len(ANSWERS) - 1  # the failed row has no answer
    rows = {row["id"]: row for row in runner.load(result.folder).table()}
    assert rows["marks"]["reasoning"] == "2 + 2, not 5"
    assert rows["two"]["answers"] == msgspec.to_builtins(before["two"].answers)
    assert "2 + 2, not 5" in (result.folder / "report.html").read_text("utf-8")
    score(result.folder, ["scoring=exact"])
    assert {name: sample.status for name, sample in by_id(result).items()} == STATUSES
    again = runner.resume(result.folder)
    assert again.summary.rows == len(ANSWERS)


NEW = ("reasoning", "tool_calls", "logprobs", "answers")


def as_format_1(folder):
    """Rewrite a run as the version before format 2 has left it."""
    config = yaml.read(folder / "config.yaml")
    manifest, summary = (json.loads((folder / name).read_text()) for name in ("manifest.json", "summary.json"))
    for plain in (config, manifest["config"]):
        del plain["model"]["thinking"], plain["limits"]["retry_empty"]
    (folder / "config.yaml").write_text(yaml.write(config))
    for name in ("empty", "unknown_endings"):
        del summary[name]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    (folder / "summary.json").write_text(json.dumps({**summary, "format": 1}))
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]
    for line in lines:
        line["status"] = {"empty": "ok"}.get(line["status"], line["status"])
        if line["finish_reason"] == "model_length":
            line["status"] = "ok"
        for name in NEW:
            line.pop(name, None)
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_folder_of_format_1_is_read_everywhere(server, capsys, tmp_path):
    names = [name for name in ANSWERS if name not in ("failed", "filtered")]
    folder = play(server, "model.thinking=keep", names=names).folder
    as_format_1(folder)
    replayed = read_everywhere(folder, capsys, tmp_path)
    assert (replayed.identical, replayed.outputs) == (True, len(names))
    score(folder, ["scoring=exact"])
    assert by_id(runner.resume(folder))["marks"].output == "<think>2 + 2, not 5</think>4"
    assert json.loads((folder / "manifest.json").read_text())["format"] == 2
    agreed = runner.reproduce(folder).agreement
    assert (agreed.compared, agreed.same) == (len(names), len(names))


def test_rows_that_a_run_of_format_1_owes_are_answered_as_its_others_were(server):
    folder = play(server, "model.thinking=keep", "limits.max_concurrency=1", names=["plain", "marks"]).folder
    as_format_1(folder)
    lines = (folder / "samples.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "samples.jsonl").write_text(lines[0])
    found = by_id(runner.resume(folder, ["limits.max_concurrency=2"]))["marks"]
    assert found.output == "<think>2 + 2, not 5</think>4"


def test_fields_that_came_later_leave_hashes_as_they_were():
    assert config_hash(RunConfig()).startswith("257ab26f12e1")  # as in the versions before `thinking` and `retry_empty`
    config = RunConfig(model=ServerModel(name="m"), limits=Limits(rpm=60))
    assert config_hash(config).startswith("66651f1479fb")
    assert identity_hash(config).startswith("03892d08db8f")
    digest = Plan(["model=fake", "+experiment=capitals_text", "sampling.temperature=0,0.5"]).digest
    assert digest.startswith("2bf3ceac0ab0")
    kept = msgspec.structs.replace(config, model=ServerModel(name="m", thinking="keep"))
    assert identity_hash(kept) != identity_hash(config)
