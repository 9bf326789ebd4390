"""What servers do with a request without a word is said beforehand, row by row of the table."""

import json
from pathlib import Path

import pytest

import runner
from runner.adapters import JsonAdapter, Prompt
from runner.servers.remarks import REMARKS, SERVERS, remarks
from tests.support.command import ostinato
from tests.support.server import Reply, Server

pytestmark = pytest.mark.usefixtures("in_tmp")


def form(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


SAID = {
    ("transformers", "temperature"): 0.7,
    ("transformers", "top_p"): 0.9,
    ("transformers", "seed"): 1,
    ("transformers", "n"): 3,
    ("transformers", "logprobs"): True,
    ("transformers", "response_format"): form({}),
    ("transformers", "presence_penalty"): 0.5,
    ("transformers", "frequency_penalty"): 0.5,
    ("transformers", "stop"): ["\n"],
    ("transformers", ""): True,
    ("llama-cpp-python", ""): True,
    ("llamacpp", "seed"): 2**32,
    ("llamacpp", "top_logprobs"): 0,
    ("llama-cpp-python", "n"): 2,
    ("llama-cpp-python", "max_completion_tokens"): 10,
    ("llamacpp", "n"): 2,
    ("llamacpp", "response_format"): {"type": "json_object"},
    ("llamacpp", "tools"): [{}],
    ("llamacpp", "echo"): True,
    (None, "seed"): -1,
    (None, "stop"): [".", ""],
}
LOOSE = (
    {"type": "number", "minimum": 3},
    {"type": "object", "properties": {"n": {"type": "integer", "multipleOf": 2}}},
    {"type": "string", "pattern": "[a-z]+"},
    {"type": "array", "items": {"anyOf": [{"type": "string", "format": "date"}]}},
    {"not": {"type": "null"}},
)
HELD = (
    {"type": "object", "properties": {"minimum": {"type": "string"}, "format": {"enum": ["not"]}}},
    {"type": "string", "pattern": "^[a-z]+$"},
)


def test_every_row_is_tested():
    assert {(server, row.parameter) for row in REMARKS for server in row.servers or (None,)} == set(SAID)
    assert {server for row in REMARKS for server in row.servers} <= set(SERVERS)


@pytest.mark.parametrize(("server", "parameter"), SAID)
def test_each_remark_is_made_where_it_applies(server, parameter):
    always = remarks(server, {})
    found = remarks(server, {parameter: SAID[server, parameter]} if parameter else {})
    assert len(found) == (1 if parameter == "" else 1 + len(always))
    if server:
        assert found[0].startswith(f"{server}: ")
        assert remarks("sglang", {parameter: SAID[server, parameter]}) == []
    assert remarks(server, {"max_tokens": 5, "temperature": 0.0}) == always


@pytest.mark.parametrize("schema", LOOSE)
def test_keywords_of_a_schema_that_llamacpp_ignores_are_said(schema):
    assert "keywords that are ignored" in remarks("llamacpp", {"response_format": form(schema)})[0]


@pytest.mark.parametrize("schema", HELD)
def test_keywords_that_hold_are_not_remarked_on(schema):
    assert remarks("llamacpp", {"response_format": form(schema)}) == []


def test_hosted_models_get_no_remarks_on_other_servers():
    assert remarks(None, {"seed": -1, "stop": [""]}, hosted=True) == []


def config(url="http://127.0.0.1:9/v1"):
    Path("rows.jsonl").write_text('{"id": "a", "question": "q", "answer": "x"}\n')
    model = [
        "model=server",
        "model.name=m",
        f"model.api_base={url}",
        "model.software=transformers",
        "execution.orchestrator=none",
    ]
    rows = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=exact"]
    return [*model, *rows, "sampling.seed=-1", "sampling.temperature=0.5", "cache.mode=off", "execution.orchestrator=none"]


def test_validate_and_the_manifest_say_it():
    told = ostinato("validate", *config())
    assert told.code == 0
    assert told.err.count("remark: ") == 3
    assert "remark: transformers: temperature acts only where" in told.err
    assert len(json.loads(ostinato("validate", "--json", *config()).out)["remarks"]) == 3
    with Server(Reply("x")) as server:
        result = runner.run(overrides=config(server.url))
    assert len(runner.records.RunFolder.open(result.folder).manifest()["remarks"]) == 3


ANY = {"type": ["object", "array", "string", "number", "boolean", "null"]}


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({}, ANY),
        ({"title": "anything"}, {"title": "anything"} | ANY),
        (
            {"type": "object", "properties": {"x": {}, "y": {"type": "string"}}},
            {"type": "object", "properties": {"x": ANY, "y": {"type": "string"}}},
        ),
        ({"type": "array", "items": {}}, {"type": "array", "items": ANY}),
        ({"anyOf": [{"type": "null"}, {}]}, {"anyOf": [{"type": "null"}, ANY]}),
        ({"type": "object", "additionalProperties": False}, {"type": "object", "additionalProperties": False}),
        ({"enum": [{}]}, {"enum": [{}]}),
    ],
)
def test_a_schema_of_any_json_is_sent_in_words_that_llamacpp_understands(schema, sent):
    adapter = JsonAdapter(Prompt(system=None, user="{{ q }}"), schema)
    assert adapter.params()["response_format"]["json_schema"]["schema"] == sent
    assert adapter.parse("3") == 3 if schema == {} else True
