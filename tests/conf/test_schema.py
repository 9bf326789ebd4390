"""The JSON Schema of config files is today's, takes every shipped file, and refuses what `load` refuses."""

import functools
import json
import re
from pathlib import Path

import jsonschema
import pytest

from runner.config import yaml
from runner.config.compose import compose
from runner.config.json_schema import group_names, json_schema, write_into, written
from runner.errors import ConfigError
from runner.system.paths import shipped_conf
from tests.support.command import ostinato

CONF = shipped_conf()
FILES = sorted(file.relative_to(CONF) for file in CONF.rglob("*.yaml") if file.relative_to(CONF).parts[0] != "local")
SCHEMAS = ["schema.json", *(f"{group}/schema.json" for group in group_names())]
MODELINE = re.compile(r"^# yaml-language-server: \$schema=(\S+)$", re.MULTILINE)


@functools.cache
def validator(schema):
    return jsonschema.Draft7Validator(json.loads((CONF / schema).read_text("utf-8")))


def wrong(schema, value):
    """Return the paths of what a schema finds wrong in a value; where no key is to blame, ''."""
    return ["/".join(map(str, error.absolute_path)) for error in validator(schema).iter_errors(value)]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_shipped_schema_is_todays(schema):
    group = str(Path(schema).parent).strip(".") or None
    text = (CONF / schema).read_text("utf-8")
    assert text == written(json_schema([CONF], group)), "run: ostinato schema --into conf"
    jsonschema.Draft7Validator.check_schema(json.loads(text))


def test_each_shipped_file_names_its_schema_and_is_valid():
    for file in FILES:
        (named,) = MODELINE.findall((CONF / file).read_text("utf-8"))
        schema = (CONF / file).parent / named
        assert schema.resolve().relative_to(CONF.resolve()).as_posix() in SCHEMAS
        assert wrong(schema.resolve().relative_to(CONF.resolve()).as_posix(), yaml.read(CONF / file) or None) == [], file
    assert {file.relative_to(CONF).as_posix() for file in CONF.rglob("schema.json")} == set(SCHEMAS)


GROUP_FILES = [
    ("cache", "{mod: rw}", [""]),
    ("cache", "{ttl: soon}", ["ttl"]),
    ("cache", "{ttl: 30d, mode: '${oc.env:MODE}', size_limit_gb: '???'}", []),
    ("model", "{kind: server, software: vllm}", []),
    ("model", "{kind: litellm, software: vllm}", [""]),
    ("model", "{defaults: [openai], software: vllm}", [""]),
    ("model", "{defaults: [mine], software: vllm}", []),
    ("model", "{kind: serve}", ["kind"]),
    ("model", "{kind: litellm, api_key: '${oc.env:KEY}'}", []),
    ("model", "{kind: litellm, api_key: secret}", ["api_key"]),
    ("model", "{kind: server, price: {promt: 1}}", ["price"]),
    ("scoring", "{kind: several, scorers: {a: {kind: contains, whole_word: true}}}", []),
    ("scoring", "{kind: several, scorers: {a: {kind: contains, pattern: x}}}", ["scorers/a"]),
    ("sampling", "{temperature: 9}", ["temperature"]),
    ("sampling", "{max_tokens: many, stop: '${x}', seed: null}", ["max_tokens"]),
]
CONFIGS = [
    ("{defaults: [{override /model: litellm}], model: {api_base: x}}", []),
    ("{defaults: [{override /model: litellm}], model: {backend: vllm}}", ["model"]),
    ("{defaults: [tickets, {override /model: mine}, {/data@data: csv}], model: {backend: vllm, api_base: x}}", []),
    ("{sampling: {temprature: 0}}", ["sampling"]),
    ("{smapling: {}}", [""]),
    ("{finetune: null, model: '${x}', hydra: {sweeper: {params: {}}}, name: '${model.name}'}", []),
    ("{model: null}", ["model", "model", "model", "model"]),
    ("{name: 'two words'}", ["name"]),
]


@pytest.mark.parametrize(("group", "text", "expected"), GROUP_FILES)
def test_what_is_wrong_in_an_option_file(group, text, expected, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    assert wrong(f"{group}/schema.json", yaml.read(tmp_path / "x.yaml")) == expected


@pytest.mark.parametrize(("text", "expected"), CONFIGS)
def test_what_is_wrong_in_a_config(text, expected, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    assert wrong("schema.json", yaml.read(tmp_path / "x.yaml")) == expected


def test_options_of_the_user_are_in_it(in_tmp):
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("defaults: [server]\nname: mine\n")
    Path("conf/mine.yaml").write_text("defaults:\n  - model: mine\n  - _self_\nmodel: {software: vllm}\n")
    assert compose([], config_name="mine").config().model.software == "vllm"
    done = ostinato("schema", "--into", "conf")
    assert done.out.split() == ["conf/schema.json", "conf/model/schema.json"]
    schema = json.loads(Path("conf/schema.json").read_text())
    check = jsonschema.Draft7Validator(schema)
    assert check.is_valid(yaml.read(Path("conf/mine.yaml")))
    assert not check.is_valid({"defaults": [{"model": "mine"}], "model": {"backend": "vllm"}})
    assert ostinato("schema", "model").out == Path("conf/model/schema.json").read_text()
    with pytest.raises(ConfigError, match=r"there is no group 'modle'; .* did you mean 'model'"):
        write_into(Path("conf"), [CONF], "modle")
