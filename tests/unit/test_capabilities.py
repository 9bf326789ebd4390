"""What a model takes is read from the map: requests are made accordingly, and a model that ends is reported."""

import json
import re
from datetime import date
from pathlib import Path

import pytest

import runner
from runner import build
from runner.analysis.compare import compare
from runner.cache import request_key
from runner.config.compose import compose
from runner.cost.pricemap import entries, key_of
from runner.errors import BadRequestError, ConfigError
from runner.experiment.estimate import forecast
from runner.experiment.prepared import prepare
from runner.lm import capabilities as module
from runner.lm.capabilities import CORRECTIONS, SOON_DAYS, THINKING, Capabilities, capabilities, ending, last_day
from runner.lm.lm import LM
from runner.network.said import of_tree
from runner.sweeps.forecast import outlook
from runner.sweeps.plan import Plan
from runner.system.paths import shipped_conf
from runner.transport.base import refused
from runner.types import Connection, Request
from tests.support.command import REPOSITORY, ostinato
from tests.support.rules import PROVIDERS, Providers, chat_models, facts_of, refusal
from tests.support.scripted import ASKED, an_lm
from tests.support.server import Reply, Server, Status
from tests.support.transports import QUIET

pytestmark = pytest.mark.usefixtures("in_tmp")

MODELS = chat_models()
WIRE = [
    "openai/gpt-4.1", "openai/o3", "openai/gpt-5-mini", "openai/gpt-5.1", "openai/gpt-5.4-mini", "openai/gpt-5.5",
    "openai/gpt-6-sol", "anthropic/claude-haiku-4-5", "anthropic/claude-opus-4-8", "anthropic/claude-sonnet-5",
    "gemini/gemini-2.5-flash", "gemini/gemini-3.8-flash", "mistral/mistral-large-latest",
]  # fmt: skip
OURS = ["model=litellm", "execution.orchestrator=none", "limits.max_attempts=1", "scoring=exact"]


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-house-0123456789")
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)


def sent(model, **arguments):
    return LM(model, **arguments).request(messages=ASKED).params


def data(count=6):
    rows = [{"id": f"r{n}", "question": f"What is {n}?", "answer": "ok"} for n in range(count)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt.user={{ question }}"]


# --- the rules of four providers


def test_there_are_models_of_each_provider():
    assert {model.partition("/")[0] for model in MODELS} == set(PROVIDERS)
    assert len(MODELS) > 150


@pytest.mark.parametrize("model_type", ["chat", "responses"])
def test_every_chat_model_takes_our_default_request(model_type):
    config = compose(["model=litellm"]).config()
    of_config = {"temperature": config.sampling.temperature, "max_tokens": config.sampling.max_tokens}
    for arguments in ({}, of_config):
        refused = {model: why for model in MODELS if (why := refusal(model, sent(model, model_type=model_type, **arguments)))}
        assert refused == {}


def test_the_rules_refuse_what_we_do_not_send():
    plain = {"temperature": 0.0, "max_tokens": 1000}
    refused = [model for model in MODELS if refusal(model, plain)]
    assert 60 < len(refused) < len(MODELS)
    assert all(sent(model) != plain for model in refused)


def test_what_a_model_takes_is_sent():
    for model in MODELS:
        limit = facts_of(model).get("max_output_tokens") or 1000
        for params in ({"temperature": 0.0}, {"temperature": 1.0}, {"max_tokens": min(limit, 1000)}):
            wanted = {"temperature": None, "max_tokens": None} | params
            if refusal(model, params) is None:
                assert sent(model, **wanted) in (params, {"max_completion_tokens": params.get("max_tokens")}), model


def test_over_the_wire(monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with Providers() as server:
        for model in WIRE:
            lm = LM(model, api_base=server.address_of(model), api_key="none", cache=False, num_retries=0)
            assert lm("hi") == ["ok"], model
        assert server.asked == WIRE


test_over_the_wire.pytestmark = QUIET


# --- which parameters


@pytest.mark.parametrize("row", THINKING, ids=lambda row: row.vendor)
def test_what_is_refused_while_a_model_thinks(row):
    model = {"OpenAI": "openai/gpt-5.4", "xAI": "xai/grok-4.5", "Anthropic": "anthropic/claude-haiku-4-5"}[row.vendor]
    given = dict.fromkeys(row.refused, 0.5) | {"reasoning_effort": "high"}
    assert capabilities(model).refused(given).keys() == row.refused.keys()
    assert capabilities(model).refused({name: value for name, value in row.refused.items() if isinstance(value, int)}) == {}
    assert capabilities(model).refused(given | {"reasoning_effort": "none"}) == {}
    assert row.source
    assert row.seen


@pytest.mark.parametrize("row", CORRECTIONS, ids=lambda row: row.names.pattern)
def test_the_map_does_not_state_what_is_corrected(row):
    corrected = {name: facts for name, facts in entries().items() if row.names.fullmatch(name)}
    assert corrected
    assert any(facts.get(name) != value for facts in corrected.values() for name, value in row.facts.items())
    assert row.source
    assert row.seen


@pytest.mark.parametrize(
    ("effort", "temperature"),
    [
        ({}, True),
        ({"reasoning_effort": "none"}, True),
        ({"reasoning_effort": "high"}, False),
        ({"reasoning": {"effort": "low"}}, False),
    ],
)
def test_the_effort_of_a_request_decides(effort, temperature):
    assert ("temperature" in sent("openai/gpt-5.1", **effort)) is temperature


def test_thinking_that_is_switched_on_needs_the_standard_temperature():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert "temperature" not in sent("anthropic/claude-haiku-4-5", thinking=thinking)
    assert sent("anthropic/claude-haiku-4-5", thinking={"type": "disabled"})["temperature"] == 0.0


@pytest.mark.parametrize("model", ["openai/gpt-6-sol", "openai/ft:o4-mini:org::id", "openai/o3-2026-12-24", "azure/gpt-5-mine"])
def test_reasoning_models_are_recognised(model):
    assert sent(model) == {"max_completion_tokens": 1000}


@pytest.mark.parametrize("model", ["openai/my-gpt-5-finetune", "openai/gpt-5-finetune", "openai/o3x", "openai/gpt-60"])
def test_a_name_on_ones_own_server_is_not_taken_for_a_model_of_openai(model):
    assert sent(model, api_base="http://127.0.0.1:1/v1") == {"temperature": 0.0, "max_tokens": 1000}


def test_a_gateway_to_a_model_of_openai_is_recognised():
    assert sent("openai/o3", api_base="http://127.0.0.1:1/v1") == {"max_completion_tokens": 1000}


def test_a_list_of_supported_parameters_decides(monkeypatch):
    listed = {"litellm_provider": "new", "supported_openai_params": ["top_p", "max_completion_tokens"]}
    monkeypatch.setattr(module.pricemap, "entries", lambda: {"new/model": listed})
    found = sent("new/model", top_p=0.5, seed=1, stop=["x"], tools=[])
    assert found == {"top_p": 0.5, "tools": [], "max_completion_tokens": 1000}


def test_an_unknown_model_is_sent_everything():
    assert sent("openai/gpt-99", top_p=0.5) == {"temperature": 0.0, "max_tokens": 1000, "top_p": 0.5}
    assert capabilities("somebody/else") == capabilities("nobody/at-all")


# --- keys


GOLDEN = {
    ("openai/gpt-4o-mini", 0.0, 1000): "5c2b6902bb50a743f7f8e916a289b27f84ad240156e7bd94ee09e67bd8650bf6",
    ("openai/o3", 1.0, 16_000): "b6ae9b672e03d9d83dda237ce4d9ef7ceada1cff656fcfa09a3b373d247c857c",
    ("anthropic/claude-haiku-4-5", 0.0, 1000): "9e85f14461cedeb9b0d92fd8d6107ca91ae593a107594affb1c880c232522a9a",
    ("gemini/gemini-2.5-flash", 0.5, None): "7d563147ef5095ed4d843cc0ad659f5a99e388dabb3911065f6ec69a98990057",
}


@pytest.mark.parametrize(("asked", "key"), GOLDEN.items())
def test_keys_of_requests_that_are_sent_unchanged_stay(asked, key):
    model, temperature, limit = asked
    assert request_key(LM(model, temperature=temperature, max_tokens=limit).request(messages=ASKED)) == key


def test_a_dropped_parameter_is_not_in_the_key():
    for model in ("openai/gpt-6-sol", "anthropic/claude-opus-4-8"):
        assert request_key(LM(model).request(messages=ASKED)) == request_key(LM(model, temperature=None).request(messages=ASKED))


# --- warn, drop, error


def test_warn_says_once_what_is_not_sent(caplog):
    for _ in range(2):
        an_lm(model="openai/gpt-6.1-sol", max_tokens=20_000, temperature=0.25, cache=False)("hi")
    (said,) = caplog.messages
    assert said == (
        "openai/gpt-6.1-sol does not take temperature=0.25: it is not sent. sampling.temperature=null leaves it out; "
        "model.unsupported=error makes it an error"
    )


def test_a_short_answer_of_a_model_that_thinks_is_said(caplog):
    sent("openai/gpt-6-luna", temperature=None, max_tokens=321)
    assert "its thinking counts as part of max_tokens=321" in caplog.text
    caplog.clear()
    sent("openai/gpt-5.4", temperature=None, max_tokens=321)
    sent("openai/gpt-4.1", temperature=None, max_tokens=321)
    assert caplog.text == ""


def test_more_than_the_longest_answer_is_said(caplog):
    limit = facts_of("openai/gpt-4.1")["max_output_tokens"] + 1
    assert sent("openai/gpt-4.1", max_tokens=limit)["max_tokens"] == limit
    assert f"set sampling.max_tokens={limit - 1} rather than {limit}" in caplog.text


def test_a_copy_for_another_model_names_the_limit_as_that_model_does():
    reasoning = LM("openai/gpt-4.1").copy(model="openai/gpt-6-sol")
    assert reasoning.kwargs == {"temperature": 0.0, "max_completion_tokens": 1000}
    assert reasoning.copy(model="anthropic/claude-haiku-4-5").request(messages=ASKED).params == sent("openai/gpt-4.1")


def test_drop_says_nothing(caplog):
    lm = LM("openai/gpt-6-astra", temperature=0.75)
    lm.unsupported = "drop"
    assert lm.request(messages=ASKED).params == {"max_completion_tokens": 1000}
    assert (lm.not_sent, caplog.text) == ({"temperature": 0.75}, "")


def test_error_refuses():
    lm = LM("openai/gpt-6-sol")
    assert lm.request(messages=ASKED).params == {"max_completion_tokens": 1000}
    lm.unsupported = "error"
    with pytest.raises(ConfigError, match=r"does not take temperature=0; leave it out with sampling\.temperature=null"):
        lm.request(messages=ASKED)
    assert lm.copy(temperature=None).request(messages=ASKED).params == {"max_completion_tokens": 1000}


# --- experiments


def test_validate_and_dry_run_say_what_is_not_sent():
    asked = [*data(), *OURS, "model.name=openai/gpt-6-sol", "model.api_key_env=null"]
    assert ostinato("validate", *asked, "--json").json["not_sent"] == {"temperature": 0.0}
    assert ostinato("validate", *asked, "model.unsupported=error").code == 2
    found = forecast(prepare(compose([*asked, "model.api_base=http://127.0.0.1:1/v1", "cache.mode=off"]).config()))
    assert found.not_sent == {"temperature": 0.0}
    assert ("not sent", "temperature=0.0") in found.table()


def test_every_cell_of_a_sweep_is_checked():
    asked = [*data(), *OURS, "model.name=openai/gpt-4.1,openai/gpt-6-sol", "cache.mode=off"]
    found = outlook(Plan(asked))
    assert [cell.not_sent for cell in found.cells] == [{}, {"temperature": 0.0}]
    valid = ostinato("validate", "-m", *asked, "--json").json
    assert [cell.get("not_sent") for cell in valid["cells"]] == [None, {"temperature": 0.0}]
    done = ostinato("validate", "-m", *asked[:-2], "model.name=openai/o1,openai/o3", "cache.mode=off")
    assert (done.code, done.out.strip()) == (0, "valid: rows: 2 cells over model.name")
    assert done.err.count("remark: openai/o1 is gone") == 1
    assert ostinato("validate", "-m", *asked, "model.unsupported=error").code == 2
    with pytest.raises(ConfigError, match="openai/gpt-6-sol does not take temperature=0"):
        Plan([*asked, "model.unsupported=error"])


def test_the_record_and_compare_tell_what_was_not_sent():
    with Server(Reply("ok")) as server:
        asked = [*data(), *OURS, f"model.api_base={server.url}", "cache.mode=off"]
        a, b = (runner.run(overrides=[*asked, f"model.name={name}"]).folder for name in ("openai/gpt-4.1", "openai/gpt-6-sol"))
    manifests = [json.loads((folder / "manifest.json").read_text())["model"] for folder in (a, b)]
    assert [manifest.get("not_sent") for manifest in manifests] == [None, {"temperature": 0.0}]
    assert 'sampling.temperature: 0.0 -> "not sent"' in compare(a, b).config_changes
    assert compare(b, b).config_changes == []


def shape(body):
    return tuple(sorted(body.keys() & {"temperature", "max_tokens", "max_completion_tokens"}))


@pytest.mark.parametrize("known", [True, False])
def test_a_record_is_continued_and_replayed_as_it_was_asked_whatever_a_newer_map_says(monkeypatch, known):
    refusing = Status(400, "no")
    with Server(lambda call: refusing if call.question == "What is 3?" else Reply("ok")) as server:
        with monkeypatch.context() as patch:
            if not known:
                patch.setattr("runner.lm.parameters.capabilities", lambda *_, **__: Capabilities())
            asked = [*data(), *OURS, f"model.api_base={server.url}", "model.name=openai/gpt-6-sol"]
            first = runner.run(overrides=asked)
            before = [shape(call.body) for call in server.calls]
        if known:
            monkeypatch.setattr("runner.lm.parameters.capabilities", lambda *_, **__: Capabilities())
        server.reset()
        server.otherwise = Reply("ok")
        again = runner.retry(first.folder)
        assert {*before, shape(server.last.body)} == {("max_completion_tokens",) if known else ("max_tokens", "temperature")}
        assert again.summary.ok == 6
        server.reset()
        capsule = runner.pack(again.folder, Path("run.ostinato"))
        replayed = runner.replay(Path("run.ostinato"))
        assert (replayed.outputs, replayed.missing, server.count) == (6, 0, 0), capsule
        assert runner.reproduce(again.folder, replay=True).agreement.gone == 0


# --- what the map does not know

OF_PARAMETERS = {
    "OpenAI": (
        {"message": "Unsupported value: 'temperature' does not support 0 with this model.", "param": "temperature"},
        "sampling.temperature=null",
    ),
    "OpenAI, renamed": (
        {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."},
        r"sampling.max_tokens=null +model.params.max_completion_tokens=1000",
    ),
    "OpenAI, too many": (
        {"message": "max_tokens is too large: 1000. This model supports at most 512 completion tokens", "param": "max_tokens"},
        "sampling.max_tokens=null",
    ),
    "Anthropic": ({"message": "`temperature` is deprecated for this model."}, "sampling.temperature=null"),
    "xAI": ({"message": "Argument not supported on this model: presence_penalty"}, "sampling.presence_penalty=null"),
    "Google": ({"message": 'Invalid JSON payload received. Unknown name "topK": Cannot find field.'}, "~model.params.top_k"),
    "Anthropic, too many": (
        {"message": "max_tokens: 1000 > 512, which is the maximum allowed number of output tokens for new"},
        "sampling.max_tokens=null",
    ),
    "search": ({"message": "Model incompatible request argument supplied: top_p"}, "sampling.top_p=null"),
}
PARAMS = {"temperature": 0.0, "max_tokens": 1000, "top_p": 0.9, "presence_penalty": 0.5, "top_k": 4}


def refused_by_openai():
    return Status(400, body=json.dumps({"error": {"type": "invalid_request_error", **OF_PARAMETERS["OpenAI"][0]}}).encode())


@pytest.mark.parametrize("vendor", OF_PARAMETERS)
def test_a_refused_parameter_is_named_with_what_mends_it(vendor):
    body, mended = OF_PARAMETERS[vendor]
    request = Request(model="openai/new", messages=ASKED, params=PARAMS)
    words = of_tree({"error": {"type": "invalid_request_error", **body}})
    error = refused(400, words, {}, request=request, connection=Connection())
    assert isinstance(error, BadRequestError)
    assert error.parameter in PARAMS
    assert f": {mended} (" in str(error)


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_refused_parameter_stops_the_run_once_and_is_of_no_row(at_once):
    with Server(refused_by_openai()) as server:
        asked = [*data(), *OURS, "model.name=openai/new", f"model.api_base={server.url}", "cache.mode=off"]
        result = runner.run(overrides=[*asked, f"limits.max_concurrency={at_once}"])
        assert server.count <= at_once
    assert (result.summary.errors, result.summary.owed) == (0, 6)
    assert "sampling.temperature=null" in result.summary.problem


@pytest.mark.parametrize(
    "words",
    [
        "'max_tokens' or 'max_completion_tokens' is too large: 1000. This model's maximum context length is 100 tokens",
        "max_tokens must be at least 1, got -12",
        "Unsupported image in messages[0].content",
    ],
)
def test_what_one_row_is_refused_for_stops_nothing(words):
    with Server(lambda call: Status(400, words) if call.question == "What is 0?" else Reply("ok")) as server:
        asked = [*data(), *OURS, "model.name=openai/new", f"model.api_base={server.url}", "cache.mode=off"]
        result = runner.run(overrides=[*asked, "limits.max_concurrency=1"])
    assert (result.summary.errors, result.summary.ok) == (1, 5)


# --- names that live

NAMES = re.compile(r"(?<!hf://)(?<!datasets/)\b(?:openai|anthropic|gemini|mistral)/[a-z][\w.:-]*\w")
DOCUMENTED = [*shipped_conf().rglob("*.yaml"), REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]


def test_shipped_and_documented_models_live():
    named = {name: file.name for file in DOCUMENTED for name in NAMES.findall(file.read_text("utf-8"))}
    assert len(named) >= 3
    for name, file in named.items():
        assert key_of(name), f"{file}: {name} is not in the map"
        assert ending(name) is None, f"{file}: {ending(name)}"


def test_the_default_model_takes_our_default_request_unchanged():
    config = compose(["model=litellm"]).config()
    assert build.lm(config).not_sent == {}


@pytest.mark.parametrize(
    ("model", "last"),
    [
        ("openai/gpt-4o-mini", "2027-01-14"),  # of its one snapshot
        ("openai/gpt-4o", "2027-01-14"),  # of its last snapshot
        ("openai/gpt-5.1", "2027-04-01"),  # its own
        ("openai/gpt-5.4-mini", None),
        ("anthropic/claude-haiku-4-5", None),
        ("somebody/else", None),
    ],
)
def test_the_last_day_of_a_model(model, last):
    assert last_day(model) == (last and date.fromisoformat(last))


def test_a_model_that_ends_soon_is_reported():
    last = date(2027, 1, 14)
    assert ending("openai/gpt-4o-mini", last.replace(year=2026)) is None
    assert "in 45 days" in ending("openai/gpt-4o-mini", date(2026, 11, 30))
    assert "is gone since 2027-01-14" in ending("openai/gpt-4o-mini", date(2027, 1, 15))
    assert (last - date(2026, 11, 15)).days == SOON_DAYS
    assert ending("openai/gpt-4o-mini", date(2026, 11, 15))
    assert ending("openai/gpt-4o-mini", date(2026, 11, 14)) is None


def test_validate_and_doctor_say_so():
    done = ostinato("validate", *data(), *OURS, "model.name=openai/o1")
    assert "remark: openai/o1 is gone since 2026-10-23" in done.err
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/old.yaml").write_text("defaults:\n  - litellm\nname: openai/o1   # long gone\n")
    (check,) = [check for check in json.loads(ostinato("doctor", "--json").out)["checks"] if check["name"] == "model old"]
    assert (check["state"], "openai/o1 is gone" in check["detail"]) == ("note", True)
