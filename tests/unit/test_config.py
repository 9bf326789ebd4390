"""Config: YAML and overrides become one typed RunConfig, and each mistake is reported with its place and what is allowed."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hydra import compose as hydra_itself
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from runner.analysis import compare
from runner.config import mistakes, yaml
from runner.config.compose import compose, hydra, hydra_compose, read, to_yaml
from runner.config.folders import folders
from runner.config.load import dump, load
from runner.config.overrides import prepared
from runner.config.roles import ADJUSTABLE, ASIDE, IDENTITY, ROLES, UNNAMED, config_hash, group_of, identity_hash
from runner.config.schema import RunConfig
from runner.config.schema.model import FakeModel, LiteLLMModel, ServerModel
from runner.config.schema.request import Sampling
from runner.errors import ConfigError
from runner.reports import differences
from runner.system.paths import shipped_conf

SECRET = "hunter2hunter2x9Qz"
KNOWN = "sk-proj-aaaabbbbccccddddeeee"

pytestmark = pytest.mark.usefixtures("in_tmp")


def config(*overrides, **options):
    return compose(list(overrides), **options).config()


def error(*overrides, **options):
    with pytest.raises(ConfigError) as caught:
        config(*overrides, **options)
    return str(caught.value)


def conf(path, text):
    """Write a file of the user's own ./conf."""
    file = Path("conf") / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


# -- mistakes in keys and options


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampling.temprature=0", "sampling.temprature: unknown key; did you mean 'temperature'? @"),
        ("+sampling.temprature=0", "sampling.temprature: unknown key; did you mean 'temperature'? @"),
        ("samplin.temperature=0", "samplin: unknown key; did you mean 'sampling'? @"),
        ("modle=fake", "modle: unknown key; did you mean 'model'? @"),
        ("budget=x", "budget=x: no such option; budget has default"),
        ("budget=null", "budget=null: the group budget needs an option; it has default"),
        ("budget.dollars=1", "budget.dollars: unknown key; budget has requests, tokens, unknown_price, usd @"),
        ("scoring.pattern=x", "scoring.pattern: unknown key for this kind; 'pattern' belongs to scoring=regex @"),
        ("+sampling.repeats=3", "sampling.repeats: already exists; write sampling.repeats=... without the +"),
        ("data=jsonl", "data.path: is required; give it as data.path=..."),
        ("nonsense", "'nonsense' is not an override; write key=value, group=option, +key=value or ~key"),
    ],
)  # fmt: skip
def test_unknown_keys_and_options_are_refused(override, message):
    assert error(override) == message.replace("@", f"(in override '{override}')")


def test_an_unknown_key_in_a_dict_given_whole_is_named():
    message = error("model=server", "model.price={prompt: 1, completion: 2, cached: 1}")
    assert message.startswith("model.price.cached: unknown key; did you mean 'cached_prompt'? (in override 'model.price={")
    message = error("model=server", "model.price.prompt=1")
    assert message.startswith("model.price: prompt is given alone; a price needs both prompt and completion")


def test_an_unknown_option_lists_the_known_ones():
    message = error("model=fakee")
    assert message.startswith(
        "model=fakee: no such option; model has anthropic, default, fake, gemini, litellm, openai, server, "
    )
    assert message.endswith("; did you mean 'fake'?")
    assert error("experiment=capitals_jsn").startswith("experiment=capitals_jsn: no such option; experiment has ")
    assert error("+experiment=capitals_jsn").endswith("did you mean 'capitals_json'?")


# -- mistakes in values


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampling.temperature=hot", "sampling.temperature: expected float | null, got str 'hot' @"),
        ("sampling.max_tokens=1.5", "sampling.max_tokens: expected int | null, got float 1.5 @"),
        ("sampling.max_tokens=no", "sampling.max_tokens: expected int | null, got str 'no' @"),
        ("sampling.max_tokens=012", "sampling.max_tokens: expected int | null, got str '012' @"),
        ("sampling.max_tokens=1:30", "sampling.max_tokens: expected int | null, got str '1:30' @"),
        ("sampling.max_tokens=0", "sampling.max_tokens: expected int >= 1, got 0 @"),
        ("sampling.stop=a", "sampling.stop: expected array | null, got str 'a' @"),
        ("cache.mode=rx", "cache.mode: 'rx' is not allowed; allowed: off, read, write, rw, refresh, replay @"),
        ("model.backend=vlm", "model.backend: 'vlm' is not allowed; allowed: llamacpp, vllm, sglang; did you mean 'vllm'? @"),
        ("limits.timeout_s=nan", "limits.timeout_s: expected float > 0.0, got nan @"),
        ("name=123", "name: expected str | null, got int 123; put it in quotes to make it text @"),
        ("name=../up", "name: expected str matching regex '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$', got '../up' @"),
        ("prompt.user=", "prompt: user is empty; say what to ask, for example prompt.user='{{ question }}'"),
        ("runs_dir=${oc.env:X}", "runs_dir: the environment variable X is not set; set it, or give a value"),
    ],
)  # fmt: skip
def test_values_that_are_not_allowed_are_refused(override, message):
    assert error(override) == message.replace("@", f"(in override '{override}')")


HYDRAS = [  # one row per row of mistakes.MESSAGES, in its order
    ("sampling.temprature=0", "sampling.temprature: unknown key; did you mean 'temperature'?"),
    ("+sampling.repeats=3", "sampling.repeats: already exists; write sampling.repeats=... without the +"),
    ("~sampling=other", "~sampling: there is no such key, or it has another value"),
    ("nogroup@x=y", "nogroup: there is no such group"),
    ("+sampling=default", "sampling: already has an option; write sampling=OPTION without the +"),
    ("hydra/sweeper=nope", "hydra/sweeper=nope: no such option"),
    ("sampling=lost", "sampling/lost.yaml: its defaults list names 'sampling/nowhere', but there is no such option"),
    ("cache=a/b", "cache=a/b: no such option; cache has default"),
    ("sampling.seed=1,2", "sampling.seed: several values; to run a cell for each: ostinato run -m sampling.seed=1,2; "),
    ("sampling.seed=range(1,3)", "sampling.seed=range(1,3): give one value, or run a cell for each: ostinato run -m"),
    ("sampling.stop=['${x']", "sampling.stop[0]: is not an interpolation; `${` starts"),
    ("runs_dir=${oc.env:X}", "runs_dir: the environment variable X is not set; set it, or give a value"),
    ("runs_dir=${nowhere}", "runs_dir: ${nowhere} refers to a key that does not exist; `${` starts"),
    ("runs_dir=${oc.nope:1}", "runs_dir: ${oc.nope:...} is not an interpolation; `${` starts"),
    ("sampling.seed=${sampling.seed}", "sampling.seed: refers to itself; give it a value"),
    ("runs_dir=${oc.env:a,b,c}", "runs_dir: cannot be resolved: env() takes from 1 to 2 positional arguments"),
    ("data=jsonl", "data.path: is required; give it as data.path=..."),
]


@pytest.mark.parametrize("row", range(len(mistakes.MESSAGES)))
def test_each_error_of_hydra_has_its_message(row):
    conf("sampling/lost.yaml", "defaults: [nowhere]\n")
    override, message = HYDRAS[row]
    with pytest.raises(ConfigError) as caught:
        config(override)
    assert str(caught.value).startswith(message)
    matching = (re.search(pattern, mistakes.text_of(caught.value.__context__)) for pattern, _ in mistakes.MESSAGES)
    assert [bool(found) for found in matching].index(True) == row


def test_an_error_of_hydra_without_a_row_keeps_its_text():
    conf("mine.yaml", "null: 1\n")
    assert error(config_name="mine") == "Incompatible key type 'NoneType'"


def test_a_defaults_list_that_names_itself_is_refused():
    conf("sampling/loop.yaml", "defaults: [loop]\n")
    assert error("sampling=loop").startswith("a defaults list refers to itself")


def test_a_group_given_at_another_place_is_explained():
    assert error("budget@x=default").startswith("budget: is a group; write budget=OPTION, with one of default (in override")


def test_text_outside_hydras_grammar_is_refused():
    assert error("data.rows=[{").startswith("'data.rows=[{' is not in Hydra's grammar: ")


def test_a_mistake_inside_a_list_is_named_by_index():
    assert error("prompt.examples=[{user: a}]").startswith("prompt.examples[0].assistant: is required")


def test_a_mistake_inside_a_mapping_of_kinds_is_named():
    assert "there is no kind 'exct'; allowed: exact," in error("scoring=several", "scoring.scorers={a: {kind: exct}}")
    assert "scoring.scorers.a.ignore_cas: unknown key; did you mean 'ignore_case'?" in error(
        "scoring=several", "scoring.scorers={a: {kind: exact, ignore_cas: true}}"
    )
    assert error("scoring=several", "scoring.scorers={a: exact}").startswith("scoring.scorers[...]: expected object, got str")


@pytest.mark.parametrize("key", ["model._target_", "model.params._target_", "adapter.schema.a.b._target_"])
def test_target_is_refused_anywhere(key):
    assert error("adapter=json", f"+{key}=os.system").startswith(f"{key}: YAML must not name code; choose a `kind` instead")
    conf("model/coded.yaml", "_target_: os.system\n")
    assert (
        error("model=coded")
        == "model._target_: YAML must not name code; choose a `kind` instead (in conf/model/coded.yaml, line 1)"
    )


# -- secrets


@pytest.mark.parametrize(
    "override",
    [
        f"+model.api_key={KNOWN}", f"+model.api_key={SECRET}", f"model.api_key_env={KNOWN}", f"model.name={KNOWN}",
        f"model.headers.X-Api-Key={SECRET}", f"model.headers.Authorization='Bearer {SECRET}'", f"model.params.a_token={SECRET}",
        f"model.api_base=http://me:{SECRET}@host/v1", f"sampling.temperature={KNOWN}", f"+modle.api_key={SECRET}",
        f"model.params.x='{KNOWN}", f"{KNOWN}",
    ],
)  # fmt: skip
def test_a_literal_key_is_refused_and_not_repeated_in_the_message(override):
    message = error("model=server", override)
    assert SECRET not in message
    assert KNOWN not in message


@pytest.mark.parametrize("key", [KNOWN, SECRET, "AKIAABCDEFGHIJKLMNOP", "hf_abcdefghijklmnopqrst"])
def test_a_literal_key_in_a_file_is_refused_and_the_file_named(key):
    conf("model/mine.yaml", f"kind: server\napi_key: {key}\n")
    assert error("model=mine") == (
        "model.api_key: a literal key is refused; put it in an environment variable and name that in `model.api_key_env` "
        "(in conf/model/mine.yaml, line 2)"
    )


def test_a_key_from_the_environment_is_kept_as_the_name_of_its_variable(monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    conf("local/default.yaml", "# @package _global_\nmodel:\n  api_key: ${oc.env:MY_KEY}\n")
    composition = compose(["model=server", "model.headers.X-Org=${oc.env:MY_KEY}", "+model.headers.X-Mix='a ${oc.env:MY_KEY}'"])
    model = composition.config().model
    assert model.api_key_env == "MY_KEY"
    assert model.headers == {"X-Org": "${oc.env:MY_KEY}", "X-Mix": "a ${oc.env:MY_KEY}"}
    for text in (to_yaml(composition.raw), to_yaml(composition.plain), to_yaml(composition.config())):
        assert SECRET not in text


def test_interpolating_a_variable_with_a_key_is_refused_elsewhere(monkeypatch):
    monkeypatch.setenv("MY_KEY", KNOWN)
    message = error("model=server", "model.name=${oc.env:MY_KEY}")
    assert message.startswith("model.name: a literal key is refused")
    assert KNOWN not in message
    assert "only model.api_key and model.headers take" in error("model=server", "model.params.auth_token=${oc.env:MY_KEY}")


# -- text


HOSTILE = [
    "${x}", "a ${oc.env:HOME} b", "costs ${ {{ x }}", "\\${x}", "\\\\${x}", "{{ a }}, {{ b }}", "it's \"quoted\"", "back\\",
    "two\nlines\n", "- list", "k: v", "[1, 2]", "{a: 1}", "no", "012", "1:30", "1e3", "null ", "???", "# no comment", "a=b",
    "x,y", "range(1,3)", " padded ", "\ttab", "é ü 漢字 \U0001f3b5", "\x85next\u2028line", "$", "${", "'",
]  # fmt: skip


def test_a_prompt_on_the_command_line_is_taken_literally():
    for first, second, third in zip(*[iter(HOSTILE)] * 3, strict=True):
        composed = config("scoring=regex", f"prompt.system={first}", f"prompt.user={second}", f"scoring.pattern={third}")
        assert (composed.prompt.system, composed.prompt.user, composed.scoring.pattern) == (first, second, third)
    assert config("prompt.system='quoted'").prompt.system == "quoted"
    assert config("prompt.system=null").prompt.system is None


def test_hostile_text_round_trips_through_a_record():
    rows = [{"q": text, "more": [text]} for text in HOSTILE]
    examples = [{"user": text, "assistant": text} for text in HOSTILE]
    round_trips(load({"prompt": {"user": "\n".join(HOSTILE), "examples": examples}, "data": {"kind": "inline", "rows": rows}}))
    for text in HOSTILE[:6]:
        round_trips(load({"model": {"kind": "fake", "reply": text}, "scoring": {"kind": "regex", "pattern": text}}))


CHARACTERS = st.sampled_from("${}\\'\",: \n#-[]") | st.characters(codec="utf-8", exclude_categories=["Cc"])


@settings(max_examples=20)
@given(texts=st.lists(st.text(CHARACTERS, max_size=30), min_size=3, max_size=3))
def test_any_text_round_trips_through_a_config(texts):
    user, cell, reply = texts
    whole = msgspec.convert(
        {
            "model": {"kind": "fake", "reply": reply},
            "prompt": {"user": f"x{user}", "examples": [{"user": user, "assistant": cell}]},
            "data": {"kind": "inline", "rows": [{"q": cell, "deep": [{"er": user}]}]},
        },
        RunConfig,
    )
    round_trips(whole)


def round_trips(whole):
    """Write the config: `read` and Hydra both read the same one."""
    Path("run").mkdir(exist_ok=True)
    Path("run/config.yaml").write_text(to_yaml(whole), "utf-8")
    assert read(Path("run/config.yaml")) == whole
    assert config(config_dir="run") == whole


def test_an_invalid_interpolation_is_explained():
    conf("prompt/shop.yaml", 'user: "it costs ${ {{ price }}"\n')
    message = error("prompt=shop")
    assert message.startswith("conf/prompt/shop.yaml: user: ")
    assert "write `\\${` for a literal one" in message
    conf("prompt/shop.yaml", 'user: "it costs \\\\${ {{ price }}"\n')
    assert config("prompt=shop").prompt.user == "it costs ${ {{ price }}"


def test_interpolations_work_outside_of_prompts(monkeypatch):
    monkeypatch.setenv("PLACE", "there")
    composed = config("runs_dir=${oc.env:PLACE}/${sampling.repeats}", "prompt.user_file=${oc.env:PLACE}.txt")
    assert (composed.runs_dir, composed.prompt.user_file) == ("there/1", "there.txt")


def test_a_regex_needs_no_quotes():
    for pattern in (r"\d+(a|b), [x]", "^a$", r"\$\{x\}", "a{2}", "(unclosed"):
        assert config("scoring=regex", f"scoring.pattern={pattern}").scoring.pattern == pattern


# -- YAML


def test_yaml_reads_values_as_the_command_line_does():
    file = conf(
        "x.yaml", "a: [no, 012, 1:30, 2020-01-01, 0x1F, 1_0_, yes]\nb: [0, -3, 1_000, 1e3, 1.5, .5, true, ~, null, .inf]\nc:\n"
    )
    assert yaml.read(file) == {
        "a": ["no", "012", "1:30", "2020-01-01", "0x1F", "1_0_", "yes"],
        "b": [0, -3, 1000, 1000.0, 1.5, 0.5, True, None, None, math.inf],
        "c": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_tokens: 012\n", "sampling.max_tokens: expected int | null, got str '012' (in conf/sampling/mine.yaml, line 1)"),
        ("max_tokens: 1:30\n", "sampling.max_tokens: expected int | null, got str '1:30' (in conf/sampling/mine.yaml, line 1)"),
        ("temperature: no\n", "sampling.temperature: expected float | null, got str 'no' (in conf/sampling/mine.yaml, line 1)"),
        ("temprature: 1\n", "sampling.temprature: unknown key; did you mean 'temperature'? (in conf/sampling/mine.yaml, line 1)"),
        ("seed: [\n", "conf/sampling/mine.yaml, line 2, column 1: not YAML: did not find expected node content"),
        ("seed: 1\nseed: 2\n", "conf/sampling/mine.yaml, line 2, column 1: not YAML: the key 'seed' occurs twice"),
        ("- seed\n", "conf/sampling/mine.yaml: a config is a mapping (key: value), not a list"),
        (b"stop: [\xe9]\n", "conf/sampling/mine.yaml: not UTF-8 at byte 7"),
        ("1: a\n", "sampling: the key 1 is not text; put it in quotes, in a YAML file"),
        ("defaults: [nowhere]\n", "sampling/mine.yaml: its defaults list names 'sampling/nowhere', but there is no such option"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(text, message, in_tmp):
    conf("sampling/mine.yaml", text)
    assert error("sampling=mine").replace(f"{in_tmp}/", "") == message


def test_an_unquoted_off_is_the_mode_off():
    conf("cache/none.yaml", "mode: off\n")
    assert config("cache=none").cache.mode == "off"


def test_values_are_normalised(tmp_path):
    conf("sampling/whole.yaml", "defaults: [default]\ntemperature: 0\n")
    assert config_hash(config("sampling=whole")) == config_hash(config("sampling.temperature=0.0")) == config_hash(config())
    assert config_hash(config("runs_dir=elsewhere", "execution.orchestrator=none")) == config_hash(config())
    assert config_hash(config("sampling.temperature=0.1")) != config_hash(config())


# -- roles


def test_every_group_has_one_role():
    assert list(ROLES) == list(RunConfig.__struct_fields__)
    assert sorted([*IDENTITY, *ADJUSTABLE, *ASIDE]) == sorted(ROLES)


ANOTHER = {
    "name": "name=other", "model": "model=fake", "sampling": "sampling.seed=1", "prompt": "prompt.system=x",
    "data": "data.limit=1", "adapter": "adapter=json", "scoring": "scoring=none", "cache": "cache.mode=off",
    "finetune": "finetune=default", "limits": "limits.rpm=60", "budget": "budget.usd=1", "launch": "launch.parallel=2",
    "execution": "execution.orchestrator=none", "expect": "expect.rows=x", "alias": "alias=tickets", "gate": "gate.min_gain=0.1",
    "sweep": "sweep.concurrency=2", "schedule": "schedule.retries=1", "runs_dir": "runs_dir=elsewhere",
    "solver": "solver=python solver.function=flow.py:answer",
}  # fmt: skip


@pytest.mark.parametrize("group", ROLES)
def test_only_groups_of_the_identity_change_the_identity_hash(group):
    assert (identity_hash(config(*ANOTHER[group].split())) != identity_hash(config())) == (group in IDENTITY)


@pytest.mark.parametrize("group", ROLES)
def test_the_config_hash_leaves_out_the_execution_and_what_is_aside(group):
    assert (config_hash(config(*ANOTHER[group].split())) == config_hash(config())) == (group in UNNAMED)


def test_comparisons_and_reports_hide_no_group_that_changes_answers():
    hidden = {*compare._BESIDE, *differences._WHERE}
    assert hidden.isdisjoint(set(IDENTITY) - {"name"})


@pytest.mark.parametrize(
    "override", ["limits.rpm=60", "+limits.rpm=60", "++limits.rpm=60", "~limits.rpm", "limits=fast", "limits"]
)
def test_the_group_of_an_override_is_its_first_key(override):
    assert group_of(override) == "limits"


# -- models


def test_model_ids_need_no_quotes():
    assert config("model=server", "model.name=a/b:c").model.name == "a/b:c"
    assert config("model=litellm", "model.name=ollama/llama3:8b").model.name == "ollama/llama3:8b"
    assert config("model=openai/gpt-4o-mini").model == LiteLLMModel(name="openai/gpt-4o-mini")
    assert config("model=openrouter/meta/llama-3:free").model.name == "openrouter/meta/llama-3:free"
    conf("model/mine/small.yaml", "kind: fake\nreply: hi\n")
    assert config("model=mine/small").model == FakeModel(reply="hi")


def test_open_mappings_take_any_key():
    assert config("model.params.top_k=5").model.params == {"seed": 0, "top_k": 5}
    assert config("model=server", "model.params={a: {b: [1]}}").model.params == {"a": {"b": [1]}}
    assert config("data.columns.question=country").data.columns == {"question": "country"}


# -- folders


def test_folders_are_searched_in_order():
    conf("model/fake.yaml", "kind: fake\nreply: own\n")
    other = Path("other/model/fake.yaml")
    other.parent.mkdir(parents=True)
    other.write_text("kind: fake\nreply: other\n")
    assert config("model=fake").model.reply == "own"
    assert config("model=fake", config_dir="other").model.reply == "other"
    assert config("model=server", config_dir="other").model == ServerModel()
    assert folders("other") == [Path("other").absolute(), Path("conf").absolute(), shipped_conf()]
    assert error("model=fake", config_dir="nowhere") == "-cd nowhere: there is no such folder"


def test_the_primary_config_is_chosen_by_name():
    conf("mine.yaml", "defaults:\n  - model: fake\n  - prompt: capitals\n  - data: capitals\n  - _self_\nname: mine\n")
    composed = config(config_name="mine")
    assert (composed.name, composed.model, composed.sampling) == ("mine", FakeModel(), Sampling())
    assert config(config_name="mine.yaml") == composed
    assert error(config_name="nope").startswith("-cn nope: no such config in conf, ")
    conf("config.yaml", "defaults:\n  - model: fake\n  - _self_\nname: instead\n")
    assert config().name == "instead"


def test_local_settings_are_optional():
    before = config()
    conf("local/default.yaml", "# @package _global_\nsampling:\n  seed: 3\n")
    assert config() == msgspec.structs.replace(before, sampling=Sampling(seed=3))
    conf("local/default.yaml", "# @package _global_\nsampling:\n  sed: 3\n")
    assert error() == "sampling.sed: unknown key; did you mean 'seed'? (in conf/local/default.yaml, line 3)"


def test_an_experiment_option_sets_the_whole_config():
    conf("experiment/mine.yaml", "# @package _global_\ndefaults:\n  - override /model: fake\nname: mine\nsampling:\n  seed: 3\n")
    for spelling in ("experiment=mine", "+experiment=mine"):
        composed = config(spelling, "sampling.repeats=2")
        assert (composed.name, composed.model, composed.sampling) == ("mine", FakeModel(), Sampling(seed=3, repeats=2))
    conf("experiment/mine.yaml", "# @package _global_\nsampling:\n  max_tokens: few\n")
    assert error("experiment=mine").endswith("(in conf/experiment/mine.yaml, line 3)")


def test_a_recorded_config_takes_overrides():
    Path("run").mkdir()
    Path("run/config.yaml").write_text(to_yaml(config("model=fake", "data.limit=3")), "utf-8")
    assert config("sampling.temperature=1", config_dir="run", config_name="config").sampling.temperature == 1


# -- Python


def test_a_runconfig_can_be_made_without_yaml():
    assert load(dump(RunConfig())) == RunConfig()
    with pytest.raises(ConfigError, match="modle: unknown key; did you mean 'model'"):
        load({"modle": {}})
    with pytest.raises(ConfigError, match="model: `kind` is missing; allowed: local, litellm, server, fake"):
        load({"model": {"name": "x"}})
    with pytest.raises(ConfigError, match=r"x\.yaml: No such file"):
        read(Path("x.yaml"))


def test_hydras_global_state_is_restored():
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    assert not GlobalHydra.instance().is_initialized()
    config()
    error("sampling=nope")
    assert not GlobalHydra.instance().is_initialized()
    with initialize_config_dir(str(shipped_conf()), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        assert config("model=fake") == config("model=fake")
        assert GlobalHydra.instance().hydra is before


def test_importing_the_config_loads_no_hydra():
    code = "import sys, runner.config.compose; print([m for m in ('hydra', 'omegaconf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "override",
    ["+model.headers.X-Gate=Bearer s3cr3tvalue98765", "+model.params.extra_headers={X-Auth: '${oc.env:MYSECRET}'}"],
)
def test_authorisation_headers_are_refused_in_a_config(override, monkeypatch):
    monkeypatch.setenv("MYSECRET", "s3cr3tvalue98765")
    message = error("model=server", override)
    assert "s3cr3tvalue98765" not in message
    assert "environment" in message


def test_harmless_names_and_values_are_not_taken_for_secrets():
    keys = config("scoring=json_match", "scoring.keys=[customer_identifier]", "+data.columns={keyword: country_name_long}")
    assert keys.scoring.keys == ["customer_identifier"]


def test_a_config_composed_again_sees_what_has_changed(monkeypatch):
    """The last compositions are kept: of the same overrides, files, folder and environment."""
    file = conf("sampling/mine.yaml", "temperature: 0.5\nstop: ['${oc.env:MARK}']\n")
    monkeypatch.setenv("MARK", "a")
    assert config("sampling=mine").sampling.temperature == config("sampling=mine").sampling.temperature == 0.5
    file.write_text("temperature: 0.25\nstop: ['${oc.env:MARK}']\n")
    monkeypatch.setenv("MARK", "b")
    changed = config("sampling=mine").sampling
    assert (changed.temperature, changed.stop) == (0.25, ["b"])
    conf("sampling/gone.yaml", "temperature: 1\n").unlink()
    Path("conf/sampling/nowhere.yaml").symlink_to("gone.yaml")
    assert config("sampling=mine").sampling == changed


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=fake", "model.reply=4", "data.limit=3", "runs_dir=other", "+experiment=capitals_text"],
        ["scoring=several", "scoring.scorers={a: {kind: exact}, b: {kind: f1}}", "++model.params.top_k=3", "~model.params.top_k"],
        ["hydra.job.name=x", "data=jsonl", "data.path=${name}.jsonl", "name=mine", "~finetune"],
    ],
)
def test_values_set_in_the_chosen_options_are_those_that_hydra_composes(overrides):
    places = folders(None)
    with hydra(overrides, places):
        apart = hydra_compose(overrides, places, "config")
        whole = hydra_itself("config", prepared(overrides, places, "config"), return_hydra_config=True)
    for composed in (apart, whole):
        composed.hydra.overrides.task, composed.hydra.overrides.hydra = [], []  # what was given, which nothing of ours reads
        composed.hydra.job.override_dirname = ""
    assert OmegaConf.to_container(apart) == OmegaConf.to_container(whole)
    assert apart._get_flag("struct") is whole._get_flag("struct") is True


def test_a_sweeper_is_chosen_with_a_slash():
    assert error("hydra.sweeper=optuna") == "hydra.sweeper=optuna: a sweeper is chosen with a slash: hydra/sweeper=optuna"
