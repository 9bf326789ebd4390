"""Any override and any YAML file gives a RunConfig, or a ConfigError that says what is wrong. And configs round-trip."""

import contextlib
import faulthandler
import functools
import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from runner import build
from runner.config import yaml
from runner.config.compose import compose, read, to_yaml
from runner.config.json_schema import json_schema
from runner.config.load import dump, load, walk
from runner.config.roles import config_hash
from runner.config.schema import RunConfig
from runner.errors import ConfigError, DataError
from runner.system.paths import shipped_conf
from tests.fuzz.depth import examples
from tests.fuzz.values import CONFIG_TEXT, json_values, of

pytestmark = pytest.mark.usefixtures("in_tmp")

GROUPS = sorted(folder.name for folder in shipped_conf().iterdir() if folder.is_dir())
SCHEMA = Draft7Validator(json_schema([shipped_conf()]))
SCHEMA_OF = functools.cache(lambda group: Draft7Validator(json_schema([shipped_conf()], group)))
SHIPPED = sorted(file for file in shipped_conf().rglob("*.yaml"))
KEYS = sorted(
    {path.partition("[")[0] for path, _ in walk(dump(RunConfig()))} | {"model.params.x", "data.path", "scoring.pattern"}
)
CLOCK_S = 20
"""Most seconds of an example. A reader that hangs ends the tests, with a traceback that says where (``pytest -s`` shows it)."""


def config_or_error(make):
    """Return the config, or None if it was refused with one of our errors."""
    faulthandler.dump_traceback_later(CLOCK_S, exit=True)
    made, said = None, ""
    try:
        made = make()
    except (ConfigError, DataError) as error:
        said = str(error)
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert said.strip() or isinstance(made, RunConfig)
    return made


def build_or_error(config):
    """Build what a config describes, or have it refused with one of our errors."""
    for part in (build.scorers, build.adapter, build.lm, build.dataset):
        with contextlib.suppress(ConfigError, DataError):
            part(config)


# -- overrides


signs = st.sampled_from(["", "", "", "+", "++", "~", "+++", "-"])
keys = st.sampled_from([*KEYS, *GROUPS, "experiment", "hydra", "hydra.run.dir", "_target_"]) | st.text(max_size=8)
grammar = st.lists(st.sampled_from([*"[]{}()=,:'\"\\$ \n\t", "null", "1", "a", "range(", "choice(", "glob(", "${"]), max_size=12)
values = CONFIG_TEXT | grammar.map("".join) | json_values().map(str) | st.sampled_from(["default", "fake", "none", "json"])
overrides = st.builds(lambda sign, key, value: f"{sign}{key}={value}", signs, keys, values) | st.text(max_size=30)


@examples(40)
@given(st.lists(overrides, min_size=1, max_size=3))
@example(["model.name='\ud800'"])
@example(["name=\x00"])
@example(["sampling.seed=" + "9" * 5000])
@example(["model.params=" + "[" * 300 + "]" * 300])
@example(["model.params.a=" + "{b:" * 300 + "1" + "}" * 300])
@example(["+" + "a." * 2000 + "b=1"])
def test_any_override_gives_a_config_or_a_message(given_overrides):
    config = config_or_error(lambda: compose(given_overrides).config())
    if config is not None:
        build_or_error(config)


# -- files


def mutated(text, seed):
    """Return `text` with a few pieces cut out, doubled, moved or replaced."""
    dice = random.Random(seed)
    for _ in range(dice.randint(1, 4)):
        at, length = dice.randrange(len(text) + 1), dice.randint(0, 12)
        piece = text[at : at + length]
        new = dice.choice(
            ["", piece * 2, piece[::-1], "\t", "\n", ": ", "- ", "[", "{", "&a ", "*a", "!!python/none ", "${", "'", "|", "? "]
        )
        text = text[:at] + new + text[at + length :]
    return text


shipped_texts = st.builds(mutated, st.sampled_from([file.read_text("utf-8") for file in SHIPPED]), st.integers(0, 2**32))
documents = st.one_of(
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
    json_values().map(lambda value: yaml.write(value).encode()),
    of(RunConfig).map(lambda plain: yaml.write(plain).encode()),
    shipped_texts.map(str.encode),
)
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%b]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 10)) for name in b"bcdefghi"
)
NASTY = [
    b"&a [*a]",
    b"model: &a {params: *a}",
    b"[" * 5000,
    b"a: " + b"[" * 2000 + b"]" * 2000,
    b"a: " + b"{b: " * 400 + b"1" + b"}" * 400,
    BOMB,
    b"? [1, 2]\n: 3",
    b"? {a: 1}\n: 3",
    b"1: 2",
    b"null: 1",
    b"a: !!binary x",
    b"a: !!timestamp 2001-01-01",
    b"a: 2001-01-01",
    b"a: !!set {b}",
    b"a: !!python/object:os.system x",
    b"--- 1\n--- 2",
    b"<<: 1",
    b"<<: [{a: 1}, 2]",
    b"defaults: 1",
    b"defaults: [1, {a: [b]}, null]",
    b"defaults:\n  - {}\n",
    b"defaults:\n  - ../../../../etc: x\n",
    b"sampling: {temperature: .nan}",
    b"sampling: {seed: " + b"9" * 5000 + b"}",
    b"model: {kind: server, api_base: 'http://[::1'}",
    b"a: ${a}",
    b"a: ${b}\nb: ${a}",
    b"a: ${oc.decode:x}",
    b"a: ${oc.create:'{b: ${.}}'}",
    b"a: ???",
]


@examples(35)
@given(documents)
def test_any_document_in_a_record_gives_a_config_or_a_message(document):
    file = Path("any.yaml")
    file.write_bytes(document)
    config = config_or_error(lambda: read(file))
    if config is not None:
        build_or_error(config)


@pytest.mark.parametrize("document", NASTY, ids=lambda document: document[:24].decode())
@pytest.mark.parametrize("place", ["record", "primary", "group"])
def test_hostile_documents_give_configs_or_messages(document, place):
    config_or_error(lambda: load_from(place, document))


@examples(40)
@given(st.sampled_from(["primary", "group", "experiment", "local"]), documents, st.sampled_from(GROUPS))
def test_any_document_in_the_users_conf_gives_a_config_or_a_message(place, document, group):
    config_or_error(lambda: load_from(place, document, group))


def load_from(place, document, group="model"):
    """Return the config with `document` in this place."""
    files = {
        "record": "any",
        "primary": "mine",
        "group": f"{group}/mine",
        "experiment": "experiment/mine",
        "local": "local/default",
    }
    file = Path("conf") / f"{files[place]}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(document)
    try:
        match place:
            case "record":
                return read(file)
            case "primary":
                return compose([], config_name="mine").config()
            case "group":
                return compose([f"{group}=mine"]).config()
            case "experiment":
                return compose(["experiment=mine"]).config()
            case _:
                return compose([]).config()
    finally:
        file.unlink()


# -- round trips


def accepted(plain):
    """Load `plain`; None if it is refused, as a prompt that looks like a secret is."""
    return config_or_error(lambda: load(plain))


@examples(100)
@given(of(RunConfig))
def test_a_written_config_is_read_back_equal(plain):
    config = accepted(plain)
    if config is None:
        return
    file = Path("config.yaml")
    file.write_text(to_yaml(config), "utf-8")
    again = read(file)
    assert again == config
    assert config_hash(again) == config_hash(config)


@examples(40)
@given(of(RunConfig))
def test_the_json_schema_takes_what_is_loaded(plain):
    if accepted(plain) is not None:
        assert [error.message for error in SCHEMA.iter_errors(json.loads(json.dumps(plain)))] == []


@examples(25)
@given(st.sampled_from([file for file in SHIPPED if file.parent != shipped_conf()]), st.integers(0, 2**32))
def test_the_json_schema_takes_a_changed_file_that_is_loaded(file, seed):
    group = file.parent.name
    text = mutated(file.read_text("utf-8"), seed)
    place = "experiment" if group == "experiment" else "group"
    if text.partition("\n")[0] == file.read_text("utf-8").partition("\n")[0] and config_or_error(
        lambda: load_from(place, text.encode(), group)
    ):
        Path("any.yaml").write_text(text, "utf-8")
        schema = SCHEMA if place == "experiment" else SCHEMA_OF(group)
        assert [error.message for error in schema.iter_errors(yaml.read(Path("any.yaml")) or None)] == []


@examples(20)
@given(of(RunConfig))
def test_a_resumed_config_keeps_everything_but_the_override(plain):
    config = accepted(plain)
    if config is None:
        return
    Path("config.yaml").write_text(to_yaml(config), "utf-8")
    again = compose(["limits.max_concurrency=16"], config_name="config", config_dir=".").config()
    kept = dump(config) | {"limits": dump(again)["limits"]}
    assert dump(again) == kept
