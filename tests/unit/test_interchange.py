"""`ostinato export --to` the files of others: they have the form that their readers ask for."""

import json
from pathlib import Path

import jsonschema
import pytest

import runner
from runner.finetune.data.check import read
from tests.support.command import ostinato
from tests.support.records import play

pytestmark = pytest.mark.usefixtures("in_tmp")

RESULT = {
    "type": "object",
    "required": ["evaluation_name", "source_data", "metric_config", "score_details"],
    "properties": {
        "source_data": {"required": ["dataset_name", "source_type"], "properties": {"source_type": {"const": "other"}}},
        "metric_config": {"required": ["lower_is_better", "score_type", "min_score", "max_score"]},
        "score_details": {"required": ["score"], "properties": {"score": {"type": "number"}}},
    },
}
EVERY_EVAL_EVER = {
    "type": "object",
    "required": [
        "schema_version",
        "evaluation_id",
        "retrieved_timestamp",
        "source_metadata",
        "model_info",
        "eval_library",
        "evaluation_results",
    ],
    "properties": {
        "source_metadata": {
            "required": ["source_type", "source_organization_name", "evaluator_relationship"],
            "properties": {"additional_details": {"additionalProperties": {"type": "string"}}},
        },
        "eval_library": {"required": ["name", "version"]},
        "model_info": {"required": ["name", "id"]},
        "evaluation_results": {"type": "array", "minItems": 1, "items": RESULT},
    },
}
"""What version 0.2.1 of github.com/evaleval/every_eval_ever (commit 0666632) asks of the fields that we write."""


def exported(run, *words):
    done = ostinato("export", str(run), *words)
    assert done.code == 0, done.err
    return done.out


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_every_eval_ever():
    run = play("model.choices=[Paris,Rome]", "sampling.temperature=0.5")
    found = json.loads(exported(run, "--to", "every-eval-ever"))
    jsonschema.validate(found, EVERY_EVAL_EVER)
    (result,) = found["evaluation_results"]
    score = runner.load(run).summary.scores["contains"]
    assert (result["evaluation_name"], result["score_details"]["score"]) == ("contains", score.mean)
    interval = result["score_details"]["uncertainty"]["confidence_interval"]
    assert (interval["lower"], interval["upper"]) == score.interval
    assert result["generation_config"]["generation_args"]["temperature"] == 0.5
    assert found["eval_library"]["name"] == "ostinato"
    done = ostinato("export", str(play("scoring=none")), "--to", "every-eval-ever")
    assert (done.code, "has no scores" in done.err) == (2, True)


def test_openai_batch_is_what_import_reads():
    run = play("sampling.seed=7", "data.limit=3", "sampling.repeats=2")
    text = exported(run, "--to", "openai-batch")
    first = lines(text)[0]
    assert (first["method"], first["url"], first["body"]["seed"], first["body"]["model"]) == (
        "POST",
        "/v1/chat/completions",
        7,
        "fake",
    )
    assert len({line["custom_id"] for line in lines(text)}) == 6
    Path("requests.jsonl").write_text(text)
    assert ostinato("import", "requests.jsonl").code == 0
    again = runner.run(overrides=["experiment=requests", "model=fake", "execution.orchestrator=none"])
    asked = {json.dumps(sample.messages) for sample in runner.load(run).samples()}
    assert {json.dumps(sample.messages) for sample in again.samples} == asked


def test_answers_that_are_right_are_fine_tuning_rows():
    run = play("model.choices=[Paris,Rome]")
    Path("train.jsonl").write_text(exported(run, "--to", "openai-finetuning"))
    located, wrong = read("train.jsonl")
    right = [sample.output for sample in runner.load(run).samples() if sample.scores["contains"] == 1]
    assert 0 < len(right) < runner.load(run).summary.rows
    assert [found.row["messages"][-1]["content"] for found in located] == right
    assert not wrong


def test_pairs_of_two_runs_prefer_the_better_answer():
    one, other = play("model.reply=Paris"), play("model.reply=Rome")
    pairs = lines(exported(one, "--to", "preferences", "--against", str(other)))
    better = {(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs}
    assert better == {("Paris", "Rome"), ("Rome", "Paris")}
    assert all(pair["prompt"][-1]["role"] == "user" for pair in pairs)
    assert ostinato("export", str(one), "--to", "preferences").code == 2


def test_a_folder_for_the_hub_has_a_card_and_one_type_per_column():
    run = play("data.limit=5")
    assert ostinato("export", str(run), "--to", "hub", "-o", "set").code == 0
    rows = lines(Path("set/data/samples.jsonl").read_text())
    assert len(rows) == 5
    assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
    assert json.loads(rows[0]["messages"])[-1]["role"] == "user"
    card = Path("set/README.md").read_text()
    assert card.startswith("---\n")
    assert "path: data/samples.jsonl" in card
    assert "| contains |" in card
    assert "--force" in ostinato("export", str(run), "--to", "hub", "-o", "set").err
    assert ostinato("export", str(run), "--to", "hub", "-o", "set", "--force").code == 0
    assert ostinato("export", str(run), "--to", "hub").code == 2
