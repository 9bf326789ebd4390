"""Every shipped YAML file composes and loads, explains its fields, and agrees with the schema."""

import re
from pathlib import Path

import msgspec
import pytest
import yaml as pyyaml
from msgspec.structs import fields

import runner
from runner import build
from runner.config import schema, yaml
from runner.config.compose import compose
from runner.config.load import load
from runner.config.schema import RunConfig
from runner.system.paths import shipped_conf

CONF = shipped_conf()
FILES = sorted(path.relative_to(CONF) for path in CONF.glob("**/*.yaml") if path.relative_to(CONF).parts[0] != "local")
OPTIONS = [file for file in FILES if len(file.parts) > 1]
DEFAULTS = [file for file in OPTIONS if file.name == "default.yaml"]
EXPERIMENTS = [file for file in OPTIONS if file.parts[0] == "experiment"]
GROUPS = {"model", "sampling", "prompt", "data", "adapter", "scoring", "cache", "limits", "budget", "launch", "execution"}
GROUPS |= {"finetune", "sweep", "gate", "schedule", "expect", "solver"}
REQUIRED = {f"data/{kind}": "data.path=x" for kind in ("file", "jsonl", "json", "csv", "tsv", "parquet", "arrow", "xlsx")}
REQUIRED |= {
    "scoring/python": "scoring.function=x.py:f",
    "solver/python": "solver.function=x.py:f",
    "scoring/plugin": "scoring.name=x",
    "adapter/plugin": "adapter.name=x",
    "data/plugin": "data.source=x",
    "solver/plugin": "solver.name=x",
    "solver/dspy": "solver.module=x.py:C",
    "solver/command": "solver.argv=[python3]",
}

pytestmark = pytest.mark.usefixtures("in_tmp")


def name(file):
    return file.with_suffix("").as_posix()


def kinds(group):
    """Return the Structs of a group by kind; a group without kinds has one, under None."""
    default = default_of(group)
    if not isinstance(default, schema.base.Kind):
        return {None: type(default)}
    module, base = {
        "model": (schema.model, "Model"),
        "data": (schema.data, "Data"),
        "adapter": (schema.request, "Adapter"),
        "scoring": (schema.scoring, "Scoring"),
        "solver": (schema.solver, "Solver"),
        "finetune": (schema.finetuning, "Finetune"),
    }[group]
    options = [struct for name, struct in vars(module).items() if name.endswith(base) and name != base and is_kind(struct)]
    return {struct.__struct_config__.tag: struct for struct in options}


def default_of(group):
    """Return what a group's default.yaml stands for. In a default config `finetune` is null."""
    return getattr(RunConfig(), group) or {"finetune": schema.finetuning.LocalFinetune()}[group]


def is_kind(struct):
    return isinstance(struct, type) and issubclass(struct, schema.base.Kind)


def test_every_group_has_a_default_file_and_a_field():
    assert len(FILES) == 1 + len(OPTIONS)
    assert len(OPTIONS) == 85
    assert {file.parts[0] for file in DEFAULTS} == GROUPS
    assert {file.parts[0] for file in OPTIONS} == GROUPS | {"experiment"}
    assert {field.name for field in fields(RunConfig)} == GROUPS | {"name", "runs_dir", "alias"}


def test_the_whole_config_loads():
    composition = compose([])
    assert set(composition.plain) == {field.name for field in fields(RunConfig)}
    assert build.dataset(composition.config())


@pytest.mark.parametrize("file", OPTIONS, ids=name)
def test_an_option_composes_and_loads(file):
    group, option = file.parts[0], file.stem
    more = [REQUIRED[name(file)]] if name(file) in REQUIRED else []
    config = compose([f"{group}={option}", *more]).config()
    if group != "experiment":
        tag = getattr(config, group).__struct_config__.tag
        assert isinstance(getattr(config, group), kinds(group)[tag])


@pytest.mark.parametrize("file", DEFAULTS, ids=name)
def test_a_default_file_equals_the_default_of_the_schema(file):
    group = file.parts[0]
    assert getattr(load({group: yaml.read(CONF / file)}), group) == default_of(group)


def owned(file):
    """Return the keys of an option that lists all; None for one that builds on another, and lists only what it changes."""
    content = yaml.read(CONF / file)
    return None if "defaults" in content else content


@pytest.mark.parametrize("file", [file for file in OPTIONS if owned(file) and file.parts[0] != "experiment"], ids=name)
def test_an_option_lists_every_field_of_its_kind(file):
    content = owned(file)
    struct = kinds(file.parts[0])[content.get("kind")]
    expected = {field.name for field in fields(struct)} | ({"kind"} if "kind" in content else set())
    assert set(content) == expected
    if file.stem in kinds(file.parts[0]):  # the option that stands for the kind says what its defaults are
        given = load({file.parts[0]: {key: value for key, value in content.items() if value != "???"} | missing(content)})
        plain = {"kind": content["kind"], **missing(content)} if "kind" in content else {}
        assert getattr(given, file.parts[0]) == msgspec.convert(plain, struct)


def missing(content):
    return {key: ["x"] if key == "argv" else "x" for key, value in content.items() if value == "???"}


@pytest.mark.parametrize("file", DEFAULTS, ids=name)
def test_a_default_explains_its_fields(file):
    _, *lines = (CONF / file).read_text("utf-8").splitlines()  # the first names the schema
    heading = lines[0].startswith("#")
    for line in lines:
        field = re.match(r"(\w+):", line)
        if field and field[1] not in ("kind", "defaults"):
            assert "  # " in line or heading or field[1] in ("ignore_case", "user"), f"{file}: {line}"
            if field[1].endswith("_s"):
                assert "seconds" in line, f"{file}: {line}"


def test_files_mean_the_same_in_yaml_1_1():
    for file in FILES:
        assert pyyaml.safe_load((CONF / file).read_text("utf-8")) == (yaml.read(CONF / file) or None), file


def test_files_have_no_tabs_and_no_trailing_space():
    for file in FILES:
        text = (CONF / file).read_text("utf-8")
        assert text.endswith("\n"), file
        assert not re.search(r"[ \t]+$|\t", text, re.MULTILINE), file


@pytest.mark.parametrize("file", EXPERIMENTS, ids=name)
def test_a_shipped_experiment_runs_offline(file):
    assert (CONF / file).read_text("utf-8").startswith("# @package _global_\n")
    overrides = [f"experiment={file.stem}", "data.limit=3", "execution.orchestrator=none"]
    chosen = compose(overrides).config()
    text = chosen.model.model_type
    result = runner.run(overrides=[*overrides, "model=fake", f"model.model_type={text}", "model.params={}", "finetune=null"])
    assert result.summary.rows == 3
    assert result.summary.errors == 0
    assert result.summary.owed == 0
    assert result.folder.parent == Path("runs").absolute() / chosen.name


@pytest.mark.parametrize(
    "value",
    [
        *({}, [], {"a": {}}, {"a": [1, "no", 1.0, True]}, {"k" * 140: {"a": 1}}, {"a": "long " * 60, "b": "x\ny"}),
        {"a": {"b": 1, "c": None, "d": "x: y", "e": True, "f": 1e-5, "g": "no", "h": "1e3", "i": "", "j": "- é", "k": "#"}},
        {"no": {"null": 1}, "a {}": {"b": 1}, "": {"": ""}, "b": {"k" * 140: 1}, "c": {"d": "long " * 60}, "e": {"f": {}}},
        ["a", "b: c", "long " * 60, "", "no", {"a": 1}, [1, 2], None, 1.5],
    ],
)
def test_known_parts_of_a_config_are_written_as_new_ones_are(value):
    assert yaml.write(value) == yaml.write(value) == yaml._dump(value)


def test_no_shipped_file_depends_on_the_current_folder_or_the_environment():
    """So that their compositions are kept whatever these are (`runner.config.compose`)."""
    for file in shipped_conf().rglob("*.yaml"):
        said = "\n".join(line.partition("#")[0] for line in file.read_text("utf-8").splitlines())
        assert not re.search(r"oc\.env|hydra:|searchpath|cwd", said), file
