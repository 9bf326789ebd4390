"""The LM, by dspy 2.6's rules: arguments, history, callbacks, copies, state, providers, and the one call underneath."""

import asyncio
import copy
import inspect
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import runner.lm
from runner import errors
from runner.adapters import ChatAdapter, TextAdapter
from runner.budget import Budget
from runner.cache import Cache
from runner.errors import BudgetExceeded, CacheError, ConfigError, EndpointClosedError, FinetuneError, ServerError
from runner.finetune.job import TrainingStatus
from runner.history import settings
from runner.limits import Endpoint, Limiter
from runner.lm import LM
from runner.providers.base import Provider
from runner.providers.local import LocalProvider
from runner.providers.openai import OpenAIProvider
from runner.retry import RetryPolicy, without_sleeping
from runner.transport import FakeTransport
from runner.types import Choice, Response, Usage

ASKED = [{"role": "user", "content": "hi"}]
KEY = "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaa"


class Scripted:
    """A transport that answers (or fails) as it is told, and remembers what it was asked."""

    def __init__(self, *script):
        self.script = list(script)
        self.requests = []
        self.connections = []

    def prepare(self, request, connection):
        pass

    def complete(self, request, connection, hear=None):
        self.requests.append(request)
        self.connections.append(connection)
        step = self.script.pop(0) if self.script else "ok"
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, Response):
            return step
        return Response(choices=[Choice(step, "stop")], usage=Usage(5, 2, 7), model="served")

    async def acomplete(self, request, connection, hear=None):
        await asyncio.sleep(0)
        return self.complete(request, connection)

    async def aclose(self):
        pass


def an_lm(*script, model="fake/m", **arguments):
    lm = LM(model, **arguments)
    lm.transport = Scripted(*script)
    return lm


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Call an LM, once in each way; both must do the same."""

    def sync(lm, *args, **kwargs):
        return lm(*args, **kwargs)

    def asynchronous(lm, *args, **kwargs):
        return asyncio.run(lm.acall(*args, **kwargs))

    return sync if request.param == "sync" else asynchronous


# --- arguments


def test_the_signature_is_dspys():
    parameters = inspect.signature(LM).parameters
    assert {name: parameter.default for name, parameter in parameters.items() if name not in ("model", "kwargs")} == {
        "model_type": "chat",
        "temperature": 0.0,
        "max_tokens": 1000,
        "cache": True,
        "cache_in_memory": True,
        "callbacks": None,
        "num_retries": 8,
        "provider": None,
        "finetuning_model": None,
        "launch_kwargs": None,
        "train_kwargs": None,
    }
    assert list(parameters)[:4] == ["model", "model_type", "temperature", "max_tokens"]
    assert parameters["kwargs"].kind is inspect.Parameter.VAR_KEYWORD
    assert list(inspect.signature(LM.__call__).parameters) == list(inspect.signature(LM.acall).parameters)


def test_attributes_are_dspys():
    lm = LM("openai/gpt-4o-mini", top_p=0.5)
    assert (lm.model, lm.model_type, lm.cache, lm.cache_in_memory, lm.num_retries) == (
        "openai/gpt-4o-mini",
        "chat",
        True,
        True,
        8,
    )
    assert (lm.history, lm.callbacks, lm.launch_kwargs, lm.train_kwargs, lm.finetuning_model) == ([], [], {}, {}, None)
    assert lm.kwargs == {"temperature": 0.0, "max_tokens": 1000, "top_p": 0.5}
    assert repr(lm) == "LM('openai/gpt-4o-mini', model_type='chat')"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"model": ""}, "write provider/name"),
        ({"model": "openai/"}, "write provider/name"),
        ({"model": 3}, "write provider/name"),
        ({"model": "fake/m", "model_type": "chta"}, "allowed are chat, text, responses"),
    ],
)
def test_wrong_arguments_are_refused(arguments, told):
    with pytest.raises(ConfigError, match=told):
        LM(**arguments)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({}, "nothing to ask"),
        ({"messages": []}, "nothing to ask"),
        ({"messages": ["hi"]}, r"messages\[0\]: a message is a dict with role and content, not 'hi'"),
        ({"messages": [{"content": "hi"}]}, r"messages\[0\]: a message is a dict"),
        ({"messages": [*ASKED, {"role": "bot", "content": "hi"}]}, r"messages\[1\]: there is no role 'bot'; allowed: assistant"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]: there is no content"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\]: there is no content"),
        ({"prompt": "hi", "temperature": -1}, "temperature must be a number from 0 up, not -1"),
        ({"prompt": "hi", "temperature": float("nan")}, "temperature must be a number"),
        ({"prompt": "hi", "temperature": "hot"}, "temperature must be a number"),
        ({"prompt": "hi", "max_tokens": 0}, "max_tokens must be a whole number from 1 up, not 0"),
        ({"prompt": "hi", "max_tokens": 1.5}, "max_tokens must be a whole number"),
        ({"prompt": "hi", "stop": object()}, "is not JSON data"),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_sent(ask, call, told):
    lm = an_lm()
    with pytest.raises(ConfigError, match=told):
        ask(lm, **call)
    assert lm.transport.requests == []
    assert lm.history == []


def test_messages_of_tools_need_no_content(ask):
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    said = [*ASKED, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_call_id": "1", "content": "3"}]
    assert ask(an_lm(), messages=said) == ["ok"]


def test_a_text_model_takes_text():
    with pytest.raises(ConfigError, match=r"messages\[0\]: a text model takes text"):
        an_lm(model_type="text")(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}])


def test_a_prompt_is_a_user_message_and_messages_win(ask):
    lm = an_lm()
    ask(lm, "hi")
    ask(lm, messages=[{"role": "system", "content": "s"}, *ASKED])
    ask(lm, "ignored", messages=ASKED, cache=False)
    assert [request.messages for request in lm.transport.requests] == [ASKED, [{"role": "system", "content": "s"}, *ASKED], ASKED]


def test_text_prompts_are_laid_out_as_dspy_does(ask):
    lm = an_lm(model_type="text")
    ask(lm, "Once")
    ask(lm, messages=[{"role": "system", "content": "Be brief."}, *ASKED])
    assert [request.prompt for request in lm.transport.requests] == [
        "Once\n\nBEGIN RESPONSE:",
        "Be brief.\n\nhi\n\nBEGIN RESPONSE:",
    ]
    assert all(request.messages is None for request in lm.transport.requests)


def test_what_is_sent_is_what_was_asked_for(ask):
    lm = an_lm(top_p=0.9, seed=None, api_key=KEY, timeout=5, headers={"x": "y"}, cache_in_memory=False)
    ask(lm, "hi", temperature=0.7, stop=["a"], max_tokens=None, api_version="3", num_retries=1, rollout_id=2)
    [request], [connection] = lm.transport.requests, lm.transport.connections
    assert request.params == {"temperature": 0.7, "top_p": 0.9, "stop": ["a"]}
    assert request.rollout == 2
    assert (connection.api_key, connection.timeout_s, connection.headers) == (KEY, 5.0, {"x": "y"})
    assert connection.extra == {"api_version": "3"}
    assert lm.kwargs["temperature"] == 0.0


def test_access_to_clouds_is_not_part_of_the_request():
    access = {
        "aws_access_key_id": "AKIA",
        "aws_secret_access_key": "abcdefgh1234",
        "vertex_project": "p",
        "azure_ad_token": "t" * 9,
    }
    lm = an_lm(**access)
    lm("hi")
    assert lm.transport.requests[0].params == {"temperature": 0.0, "max_tokens": 1000}
    assert lm.transport.connections[0].extra == access
    assert "abcdefgh1234" not in json.dumps([str(lm.history), lm.dump_state()])


def test_a_pydantic_class_becomes_its_schema():
    from pydantic import BaseModel

    class Answer(BaseModel):
        value: int

    lm = an_lm()
    lm("hi", response_format=Answer)
    sent = lm.transport.requests[0].params["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["name"] == "Answer"
    assert sent["json_schema"]["schema"]["properties"]["value"]["type"] == "integer"


# --- reasoning models

REASONING = ["o1", "o1-mini", "o1-preview", "o3", "o3-mini", "o3-2025-04-16", "o3-deep-research", "o4-mini", "openai/o4-mini"]
REASONING += ["openai/gpt-5", "gpt-5-mini", "gpt-5-nano-2025-08-07", "gpt-5.1", "azure/o3-mini", "openrouter/openai/o3", "GPT-5"]
REASONING += ["ft:o4-mini-2025-04-16:org::id"]
PLAIN = [
    "gpt-4o",
    "openai/gpt-4o-mini",
    "gpt-5-chat-latest",
    "openai/gpt-5.1-chat-latest",
    "o200k",
    "ollama/o3x",
    "gpt-50",
    "olmo",
]


@pytest.mark.parametrize("model", REASONING)
def test_reasoning_models_have_rules_of_their_own(model):
    lm = LM(model, temperature=1.0, max_tokens=16_000)
    assert lm.kwargs == {"temperature": 1.0, "max_completion_tokens": 16_000}
    assert LM(model, temperature=None, max_tokens=None).request(messages=ASKED).params == {}
    for wrong in (
        {},
        {"temperature": 1.0},
        {"temperature": 1.0, "max_tokens": 15_999},
        {"temperature": 0.5, "max_tokens": 16_000},
    ):
        with pytest.raises(ConfigError, match=r"is a reasoning model: it takes temperature 1\.0 or none"):
            LM(model, **wrong)
    sent = lm.request(messages=ASKED, max_tokens=20_000).params
    assert sent == {"temperature": 1.0, "max_completion_tokens": 20_000}


@pytest.mark.parametrize("model", PLAIN)
def test_other_models_do_not(model):
    assert LM(model).request(messages=ASKED).params == {"temperature": 0.0, "max_tokens": 1000}


# --- outputs


def test_outputs_are_texts(ask):
    two = Response(choices=[Choice("a", "stop"), Choice("b", "stop")])
    assert ask(an_lm(two), "hi", n=2) == ["a", "b"]


def test_outputs_are_dicts_where_there_is_more_than_text(ask):
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    answer = Response(choices=[Choice("a", "stop", {"content": []}), Choice(None, "tool_calls", tool_calls=calls)])
    assert ask(an_lm(answer), "hi") == [{"text": "a"}, {"text": None, "tool_calls": calls}]
    assert ask(an_lm(answer), "hi", logprobs=True) == [
        {"text": "a", "logprobs": {"content": []}},
        {"text": None, "logprobs": None, "tool_calls": calls},
    ]


def test_a_cut_off_answer_is_given_told_and_not_cached(ask, caplog):
    cut = Response(choices=[Choice("half", "length")])
    lm = an_lm(cut, "whole")
    with caplog.at_level(logging.WARNING, "ostinato"):
        assert ask(lm, "hi") == ["half"]
    assert "cut off at max_tokens=1000" in caplog.text
    assert ask(lm, "hi") == ["whole"]


# --- history


def test_a_call_leaves_an_entry(ask):
    lm = an_lm("four", api_key=KEY)
    ask(lm, "2 + 2?", temperature=0.5, api_base="http://host/v1", headers={"Authorization": KEY})
    [entry] = lm.history
    assert set(entry) >= {
        *("prompt", "messages", "kwargs", "response", "outputs", "usage", "cost"),
        *("timestamp", "uuid", "model", "response_model", "model_type"),
    }
    assert (entry["prompt"], entry["messages"], entry["outputs"]) == ("2 + 2?", None, ["four"])
    assert entry["kwargs"] == {"temperature": 0.5}
    assert entry["usage"]["total_tokens"] == 7
    assert (entry["model"], entry["response_model"], entry["model_type"]) == ("fake/m", "served", "chat")
    assert (entry["cost"], entry["cache_hit"]) == (None, False)
    assert isinstance(entry["response"], Response)
    assert KEY not in str(entry)


def test_a_hit_is_in_the_history_and_costs_nothing(ask):
    lm = an_lm()
    ask(lm, "hi")
    ask(lm, "hi")
    assert [(entry["cache_hit"], entry["cost"]) for entry in lm.history] == [(False, None), (True, 0.0)]
    assert lm.history[0]["uuid"] != lm.history[1]["uuid"]


def test_a_known_model_has_a_cost():
    lm = an_lm(model="openai/gpt-4o-mini")
    lm("hi")
    assert lm.history[0]["cost"] == pytest.approx(5 * 0.15e-6 + 2 * 0.6e-6)


def test_a_server_of_ones_own_has_none(monkeypatch):
    assert LM("openai/gpt-4o-mini", api_base="http://host/v1").price is None
    assert LM("openai/gpt-4o-mini", base_url="http://host/v1").price is None
    lm = LM("openai/gpt-4o-mini")
    assert lm.price is not None
    assert lm.copy(model="openai/gpt-4o").price != lm.price
    monkeypatch.setenv("OPENAI_BASE_URL", "http://host/v1")
    assert lm.price is None


def test_history_can_be_switched_off(monkeypatch, ask):
    monkeypatch.setattr(settings, "disable_history", True)
    lm = an_lm()
    assert ask(lm, "hi") == ["ok"]
    assert lm.history == []
    assert runner.settings is settings


@pytest.mark.parametrize(("most", "kept"), [(3, ["2", "3", "4"]), (0, [])])
def test_history_is_bounded(monkeypatch, most, kept):
    monkeypatch.setattr(settings, "max_history_size", most)
    lm = an_lm()
    for n in range(5):
        lm(str(n))
    assert [entry["prompt"] for entry in lm.history] == kept


def test_inspect_history_prints_the_last_calls(capsys):
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    lm = an_lm("first answer", Response(choices=[Choice("second answer", "stop", {"content": []})]))
    lm("first question")
    lm(messages=[{"role": "system", "content": "Be brief."}, {"role": "assistant", "tool_calls": calls}, *ASKED], logprobs=True)
    lm.inspect_history()
    printed = capsys.readouterr().out
    assert "first" not in printed
    for part in ("System:\n\nBe brief.", "User:\n\nhi", "Response:\n\nsecond answer", "fake/m", "'name': 'f'"):
        assert part in printed
    lm.inspect_history(n=5)
    assert "first question" in capsys.readouterr().out


# --- callbacks


class Recorder:
    def __init__(self):
        self.seen = []

    def on_lm_start(self, call_id, instance, inputs):
        self.seen.append(("start", call_id, instance, inputs))

    def on_lm_end(self, call_id, outputs, exception=None):
        self.seen.append(("end", call_id, outputs, exception))


class Raiser:
    def on_lm_start(self, call_id, instance, inputs):
        raise RuntimeError("start failed")

    def on_lm_end(self, call_id, outputs, exception=None):
        raise RuntimeError("end failed")


def test_callbacks_hear_of_start_and_end(ask):
    recorder = Recorder()
    lm = an_lm("four", callbacks=[recorder])
    ask(lm, "2 + 2?", temperature=0.5, api_key=KEY)
    (_, first, instance, inputs), (_, last, outputs, exception) = recorder.seen
    assert first == last
    assert instance is lm
    assert inputs == {"prompt": "2 + 2?", "messages": None, "temperature": 0.5}
    assert (outputs, exception) == (["four"], None)


@pytest.mark.parametrize("error", [errors.AuthenticationError("no"), KeyboardInterrupt()])
def test_callbacks_hear_of_failures(ask, error):
    recorder = Recorder()
    with pytest.raises(type(error)):
        ask(an_lm(error, callbacks=[recorder]), "hi")
    assert recorder.seen[1][2:] == (None, error)


def test_a_callback_that_raises_spoils_nothing(ask, caplog):
    recorder = Recorder()
    assert ask(an_lm(callbacks=[Raiser(), recorder]), "hi") == ["ok"]
    assert [event for event, *_ in recorder.seen] == ["start", "end"]
    assert "the callback on_lm_start raised" in caplog.text
    assert "end failed" in caplog.text


# --- copies and state


def test_a_copy_is_independent_and_shares_what_stands_for_things():
    lm = an_lm(top_p=0.5, launch_kwargs={"port": 1}, callbacks=[Recorder()])
    lm("hi")
    lm.limiter, lm.budget = Limiter(Endpoint("test"), max_concurrency=1), Budget()
    new = lm.copy()
    assert new.history == []
    assert len(lm.history) == 1
    new.kwargs["top_p"] = 1
    new.launch_kwargs["port"] = 2
    new.callbacks.clear()
    assert (lm.kwargs["top_p"], lm.launch_kwargs["port"], len(lm.callbacks)) == (0.5, 1, 1)
    assert (new.transport, new.limiter, new.budget, new.provider) == (lm.transport, lm.limiter, lm.budget, lm.provider)


def test_a_copy_updates_attributes_and_arguments():
    lm = LM("openai/gpt-4o-mini", top_p=0.5)
    new = lm.copy(model="openai/gpt-4o", temperature=0.7, seed=3, num_retries=1, cache=False)
    assert (new.model, new.num_retries, new.cache) == ("openai/gpt-4o", 1, False)
    assert new.kwargs == {"temperature": 0.7, "max_tokens": 1000, "top_p": 0.5, "seed": 3}
    assert lm.kwargs == {"temperature": 0.0, "max_tokens": 1000, "top_p": 0.5}
    assert lm.model == "openai/gpt-4o-mini"


def test_a_copy_with_another_model_is_reached_in_that_models_way():
    lm = LM("openai/gpt-4o-mini")
    assert isinstance(lm.copy(model="local/smollm2").provider, LocalProvider)
    assert lm.copy(model="fake/x")("hi", cache=False)
    assert not isinstance(LM("fake/x").copy(model="openai/gpt-4o").transport, FakeTransport)
    assert isinstance(lm.copy(model="somewhere/else").provider, Provider)


def test_a_copy_keeps_a_provider_that_was_chosen():
    mine = Trainer()
    lm = LM("openai/gpt-4o-mini", provider=mine)
    assert lm.copy(model="openai/gpt-4o").provider is mine
    assert lm.copy(provider=Provider()).provider is not mine


def test_a_copy_with_a_cache_uses_it(tmp_path):
    own = Cache(tmp_path / "own")
    new = LM("fake/m").copy(cache=own)
    new("hi")
    assert new.cache is True
    assert own.stats()["entries"] == 1
    own.close()


def test_deepcopy_is_a_copy_with_its_history():
    lm = an_lm()
    lm("hi")
    new = copy.deepcopy(lm)
    assert [entry["prompt"] for entry in new.history] == ["hi"]
    new.history.clear()
    assert len(lm.history) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": "openai/gpt-4o-mini"},
        {"model": "openai/gpt-4o-mini", "temperature": 0.3, "max_tokens": None, "top_p": 0.9, "stop": ["x"], "seed": 1},
        {"model": "openai/o3", "temperature": 1.0, "max_tokens": 20_000, "reasoning_effort": "low"},
        {"model": "openai/gpt-5", "temperature": None, "max_tokens": None, "model_type": "responses"},
        {
            "model": "local/smollm2",
            "model_type": "text",
            "cache": False,
            "cache_in_memory": False,
            "num_retries": 2,
            "launch_kwargs": {"port": 0, "backend": "llamacpp"},
            "train_kwargs": {"epochs": 1},
            "finetuning_model": "local/other",
            "api_base": "http://127.0.0.1:8000/v1",
            "timeout": 3,
        },
    ],
)
def test_state_goes_round(arguments):
    lm = LM(**arguments)
    state = json.loads(json.dumps(lm.dump_state()))
    again = LM.load_state(state)
    assert again.dump_state() == lm.dump_state() == state
    assert again.kwargs == lm.kwargs
    for name, value in arguments.items():
        if hasattr(lm, name):
            assert getattr(again, name) == value


def test_state_holds_no_secret(tmp_path):
    lm = LM(
        "bedrock/x",
        api_key=KEY,
        headers={"Authorization": KEY},
        extra_headers={"x-api-key": KEY},
        aws_secret_access_key=KEY,
        aws_session_token=KEY,
        vertex_credentials=KEY,
        launch_kwargs={"env": {"HF_TOKEN": KEY}, "api_key": KEY, "port": 1},
        train_kwargs={"wandb_api_key": KEY, "epochs": 2},
        cache=Cache(tmp_path),
        stop_token_ids=[7],
        max_tokens=5,
    )
    state = lm.dump_state()
    assert KEY not in json.dumps(state)
    assert (state["launch_kwargs"], state["train_kwargs"]) == ({"env": {}, "port": 1}, {"epochs": 2})
    assert (state["stop_token_ids"], state["max_tokens"], state["cache"]) == ([7], 5, True)


def test_a_dumped_state_is_a_copy():
    lm = LM("fake/m", launch_kwargs={"port": 1}, stop=["x"])
    state = lm.dump_state()
    state["launch_kwargs"]["port"] = 2
    state["stop"].append("y")
    assert (lm.launch_kwargs, lm.kwargs["stop"]) == ({"port": 1}, ["x"])


# --- the cache


def test_the_second_call_is_a_hit(ask):
    lm = an_lm("first", "second")
    assert ask(lm, "hi") == ask(lm, "hi") == ask(lm.copy(), "hi") == ["first"]
    assert ask(lm, "hi", cache=False) == ["second"]
    assert len(lm.transport.requests) == 2


def test_an_lm_without_a_cache_asks_each_time(ask):
    lm = an_lm("first", "second", cache=False)
    assert (ask(lm, "hi"), ask(lm, "hi")) == (["first"], ["second"])


def test_rollouts_have_entries_of_their_own_and_are_not_sent(ask):
    lm = an_lm("none", "one", "two")
    assert [ask(lm, "hi", rollout_id=rollout) for rollout in (None, 1, 2, 1, None)] == [
        ["none"],
        ["one"],
        ["two"],
        ["one"],
        ["none"],
    ]
    assert all("rollout_id" not in request.params for request in lm.transport.requests)
    assert ask(an_lm("new", rollout_id=2), "hi") == ["two"]


def test_a_cache_of_ones_own(ask, tmp_path):
    own, other = Cache(tmp_path / "own"), Cache(tmp_path / "other")
    lm = an_lm("first", "second", cache=own)
    assert (ask(lm, "hi"), ask(lm, "hi")) == (["first"], ["first"])
    assert ask(lm, "hi", cache=other) == ["second"]
    assert (own.stats()["entries"], other.stats()["entries"]) == (1, 1)
    own.close()
    other.close()


def test_the_shared_cache_lives_at_home(tmp_path):
    an_lm()("hi")
    assert (tmp_path / "home" / "cache" / "cache.db").exists()


def test_without_memory_the_disk_answers(ask):
    lm = an_lm("first", "second", cache_in_memory=False)
    assert ask(lm, "hi") == ask(lm, "hi") == ["first"]


def test_replay_never_sends(ask, tmp_path):
    lm = an_lm(cache=Cache(tmp_path / "own", mode="replay"))
    with pytest.raises(CacheError, match=r"replay: .* nothing was sent"):
        ask(lm, "hi")
    assert lm.transport.requests == []


@pytest.mark.parametrize("finish_reason", ["length", "content_filter", "refusal"])
def test_half_and_refused_answers_are_asked_for_again(ask, finish_reason):
    lm = an_lm(Response(choices=[Choice("no", finish_reason)]), "yes")
    assert (ask(lm, "hi"), ask(lm, "hi"), ask(lm, "hi")) == (["no"], ["yes"], ["yes"])


def test_failures_are_not_cached(ask):
    lm = an_lm(errors.ContentFilterError("no"), "yes")
    with pytest.raises(errors.ContentFilterError):
        ask(lm, "hi")
    assert ask(lm, "hi") == ["yes"]


# --- retries


def test_what_may_pass_is_tried_again(ask):
    lm = an_lm(ServerError("busy"), errors.RateLimitError("slow down", retry_after=100), "ok")
    with without_sleeping():
        assert ask(lm, "hi") == ["ok"]
    assert len(lm.transport.requests) == 3


@pytest.mark.parametrize("where", ["constructor", "call", "policy"])
def test_num_retries_are_those_after_the_first(ask, where):
    lm = an_lm(*[ServerError("busy") for _ in range(9)], num_retries=2 if where == "constructor" else 7)
    if where == "policy":
        lm.retry = RetryPolicy(max_attempts=3)
    with without_sleeping(), pytest.raises(ServerError) as caught:
        ask(lm, "hi", **({"num_retries": 2} if where == "call" else {}))
    assert len(lm.transport.requests) == caught.value.attempts == 3


def test_what_will_not_pass_is_not(ask):
    lm = an_lm(errors.ContextWindowError("too long"))
    with pytest.raises(errors.ContextWindowError) as caught:
        ask(lm, "hi")
    assert caught.value.attempts == len(lm.transport.requests) == 1


# --- limits and budgets


async def test_concurrent_calls_keep_to_the_limit():
    lm = LM("fake/m", cache=False)
    lm.transport = FakeTransport(latency_s=0.001)
    at_once, most = 0, 0
    asked = lm.transport.acomplete

    async def watched(request, connection, hear):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await asked(request, connection)
        finally:
            at_once -= 1

    lm.transport.acomplete = watched
    lm.limiter = Limiter(Endpoint("test"), max_concurrency=4)
    outputs = await asyncio.gather(*[lm.acall(f"question {n}") for n in range(40)])
    assert len({output[0] for output in outputs}) > 35
    assert most == 4
    assert len(lm.history) == 40


async def test_a_closed_endpoint_is_not_asked_and_not_paid():
    lm = an_lm(errors.AuthenticationError("the key was refused"), "the key is good again", cache=False)
    lm.limiter, lm.budget = Limiter(Endpoint("test"), max_concurrency=2), Budget(requests=10)
    with lm.limiter.using():
        with pytest.raises(errors.AuthenticationError):
            await lm.acall("hi")
        for _ in range(3):
            with pytest.raises(EndpointClosedError, match="the key was refused") as caught:
                await lm.acall("hi")
            assert isinstance(caught.value.__cause__, errors.AuthenticationError)
    assert len(lm.transport.requests) == 1
    assert lm.budget.spent["requests"] == 1
    assert await lm.acall("hi") == ["the key is good again"]  # nobody was using it any more: it is met afresh


def test_a_budget_is_kept(ask):
    lm = an_lm(cache=False)
    lm.budget = Budget(requests=2)
    ask(lm, "hi")
    ask(lm, "hi")
    with pytest.raises(BudgetExceeded, match=r"budget\.requests=2"):
        ask(lm, "hi")
    assert len(lm.transport.requests) == 2
    assert lm.budget.spent == {"usd": 0.0, "tokens": 14, "requests": 2}


def test_a_dollar_budget_counts_dollars(ask):
    lm = an_lm(model="openai/gpt-4o-mini", cache=False, max_tokens=100)
    lm.budget = Budget(usd=1.0)
    ask(lm, "hi")
    assert lm.budget.spent["usd"] == pytest.approx(5 * 0.15e-6 + 2 * 0.6e-6)
    lm.budget = Budget(usd=1e-6)
    with pytest.raises(BudgetExceeded):
        ask(lm, "hi")


def test_a_dollar_budget_without_a_price_is_refused(ask):
    lm = an_lm()
    lm.budget = Budget(usd=1.0)
    with pytest.raises(BudgetExceeded, match="price of this model is unknown"):
        ask(lm, "hi")
    assert lm.transport.requests == []


def test_an_answer_that_does_not_say_what_it_used_is_counted_in_full(ask):
    lm = an_lm(Response(choices=[Choice("a", "stop"), Choice("b", "stop")]), cache=False, max_tokens=50)
    lm.budget = Budget(tokens=1000)
    ask(lm, "hi", n=2)
    assert 100 <= lm.budget.spent["tokens"] <= 200  # max_tokens twice, and the most that the question may be


def test_a_failed_attempt_is_a_request_but_no_tokens(ask):
    lm = an_lm(ServerError("busy"), "ok")
    lm.budget = Budget(tokens=5000)
    with without_sleeping():
        ask(lm, "hi")
    assert lm.budget.spent == {"usd": 0.0, "tokens": 7, "requests": 2}


async def test_hits_cost_nothing():
    lm = an_lm()
    lm.budget, lm.limiter = Budget(requests=1), Limiter(Endpoint("test"), max_concurrency=1)
    for _ in range(3):
        assert await lm.acall("hi") == ["ok"]


async def test_time_in_the_queue_is_not_latency(monkeypatch):
    now = 0.0
    monkeypatch.setattr("runner.lm.time.perf_counter", lambda: now)
    lm = an_lm(cache=False)
    lm.limiter = Limiter(Endpoint("test"), max_concurrency=1)
    answer = lm.transport.complete

    def a_second(request, connection):
        nonlocal now
        now += 1
        return answer(request, connection)

    lm.transport.complete = a_second
    made = await asyncio.gather(*[lm.acomplete(lm.request(messages=ASKED, rollout=n)) for n in range(5)])
    assert [completion.latency_s for completion in made] == [1.0] * 5


async def test_an_answer_that_takes_too_long_is_a_timeout():
    lm = LM("fake/m", cache=False, timeout=0.01, num_retries=0)
    lm.transport = FakeTransport(latency_s=60)
    with pytest.raises(errors.LMTimeoutError, match=r"no answer within 0\.01 s"):
        await lm.acall("hi")


# --- one request


async def test_acomplete_plays_a_request_whole():
    lm = an_lm(ServerError("busy"), "four", model="openai/gpt-4o-mini")
    request = lm.request(messages=ASKED, rollout=3, temperature=1)
    with without_sleeping():
        made = await lm.acomplete(request)
    assert (made.response.choices[0].text, made.cache, made.attempts) == ("four", "miss", 2)
    assert made.cost_usd == pytest.approx(5 * 0.15e-6 + 2 * 0.6e-6)
    assert made.started_at
    assert made.latency_s >= 0
    hit = await lm.acomplete(request)
    assert (hit.cache, hit.attempts, hit.cost_usd, hit.saved_usd, hit.key) == ("hit", 0, 0.0, made.cost_usd, made.key)
    assert lm.history == []
    lm.cache = False
    assert (await lm.acomplete(request)).cache == "off"


# --- loops and threads


async def test_sync_calls_work_inside_a_running_loop():
    assert an_lm("four")("2 + 2?") == ["four"]


def test_one_lm_serves_many_threads():
    lm = LM("fake/m")
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda n: lm(f"question {n % 20}"), range(200)))
    assert outputs == [lm(f"question {n % 20}") for n in range(200)]
    assert len(lm.history) == 400
    assert 20 <= lm.transport.sent <= 160


def test_one_lm_serves_many_loops():
    lm = LM("fake/m", cache=False)
    outputs = [asyncio.run(lm.acall("hi")) for _ in range(3)]
    assert outputs[0] == outputs[1] == outputs[2]


def test_a_fake_model_needs_nothing(ask, monkeypatch, tmp_path):
    assert ask(LM("fake/x"), "hi") == ask(LM("fake/x", cache=False), "hi")
    assert ask(LM("fake/x"), "hi") != ask(LM("fake/x"), "ho")


# --- providers


class Trainer(Provider):
    """Trains by giving the model another name, when it is told to go on."""

    finetunable = True

    def __init__(self):
        self.go_on = threading.Event()
        self.asked = []

    def launch(self, lm, launch_kwargs=None):
        self.asked.append(("launch", lm, launch_kwargs))

    def kill(self, lm, launch_kwargs=None):
        self.asked.append(("kill", lm, launch_kwargs))

    def finetune(self, job, model, train_data, train_data_format, train_kwargs=None):
        assert self.go_on.wait(20)
        if (train_kwargs or {}).get("fail"):
            raise FinetuneError("the loss is not a number")
        self.asked.append(("finetune", job, model, train_data, train_data_format, train_kwargs))
        return f"{model}-trained"


@pytest.mark.parametrize(
    ("model", "cls"),
    [
        *[(model, OpenAIProvider) for model in ("openai/gpt-4o-mini", "gpt-4o", "ft:gpt-4o-mini-2024-07-18:org::id", "o3")],
        ("local/smollm2", LocalProvider),
        *[(model, Provider) for model in ("openai/smollm2", "anthropic/claude-sonnet-4", "fake/m", "ollama/llama3")],
    ],
)
def test_the_provider_is_known_by_the_model(model, cls):
    lm = LM(model, temperature=1.0, max_tokens=16_000)
    assert type(lm.provider) is type(lm.infer_provider()) is cls


def test_the_adapter_is_known_by_the_model_type():
    assert isinstance(LM("fake/m").infer_adapter(), ChatAdapter)
    assert isinstance(LM("fake/m", model_type="responses").infer_adapter(), ChatAdapter)
    assert isinstance(LM("fake/m", model_type="text").infer_adapter(), TextAdapter)


def test_launch_and_kill_are_the_providers():
    provider = Trainer()
    lm = LM("fake/m", provider=provider)
    lm.launch()
    lm.kill({"force": True})
    assert provider.asked == [("launch", lm, None), ("kill", lm, {"force": True})]


def test_launch_and_kill_do_nothing_where_there_is_nothing_to_do():
    lm = LM("openai/gpt-4o-mini")
    lm.launch()
    lm.kill()


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4", "fake/m"])
def test_who_cannot_train_says_so(model):
    with pytest.raises(FinetuneError, match=rf"cannot fine-tune '{model}'"):
        LM(model).finetune([{"messages": []}])


def test_training_is_a_future_of_an_lm():
    provider, data = Trainer(), [{"messages": ASKED}]
    lm = LM("fake/m", provider=provider, train_kwargs={"epochs": 1}, top_p=0.5)
    job = lm.finetune(data, "chat")
    assert job.status() in (TrainingStatus.pending, TrainingStatus.running)
    assert job.thread.is_alive()
    assert not job.done()
    provider.go_on.set()
    trained = job.result(timeout=20)
    assert isinstance(trained, LM)
    assert (trained.model, trained.kwargs["top_p"], trained.history) == ("fake/m-trained", 0.5, [])
    assert trained.provider is provider
    assert trained("hi")
    assert job.status() == TrainingStatus.succeeded
    assert not job.cancel()
    assert provider.asked == [("finetune", job, "fake/m", data, "chat", {"epochs": 1})]


def test_a_model_of_this_machine_is_not_asked_at_the_server_of_its_base():
    lm = LM("local/base", api_base="http://127.0.0.1:1/v1", api_key="none", top_p=0.5)
    tuned = lm.copy(model="local/ft-0123456789ab")
    assert tuned.kwargs.keys() & {"api_base", "api_key"} == set()
    assert (tuned.kwargs["top_p"], lm.kwargs["api_base"]) == (0.5, "http://127.0.0.1:1/v1")
    assert lm.copy(model="local/x", api_base="http://127.0.0.1:2/v1").kwargs["api_base"] == "http://127.0.0.1:2/v1"
    assert lm.copy(temperature=1.0).kwargs["api_key"] == "none"


def test_another_model_may_be_trained_with_other_settings():
    provider = Trainer()
    provider.go_on.set()
    lm = LM("fake/m", provider=provider, finetuning_model="fake/base", train_kwargs={"epochs": 1})
    assert lm.finetune([], "completion", {"epochs": 2}).result(timeout=20).model == "fake/base-trained"
    assert provider.asked[0][2:] == ("fake/base", [], "completion", {"epochs": 2})


def test_a_training_that_fails_raises_from_its_result():
    provider = Trainer()
    provider.go_on.set()
    job = LM("fake/m", provider=provider).finetune([], train_kwargs={"fail": True})
    with pytest.raises(FinetuneError, match="the loss is not a number"):
        job.result(timeout=20)
    assert job.status() == TrainingStatus.failed


def test_a_training_data_format_that_is_not_one():
    with pytest.raises(ConfigError, match="train_data_format 'chta': allowed are chat, completion, preference, grpo_chat"):
        LM("fake/m", provider=Trainer()).finetune([], "chta")


# --- one flight a request, and none to the wrong place


async def test_a_request_in_flight_is_waited_for_and_shared(tmp_path):
    started, gate = asyncio.Event(), asyncio.Event()

    class Slow(Scripted):
        async def acomplete(self, request, connection, hear=None):
            started.set()
            await gate.wait()
            return self.complete(request, connection)

    lm = LM("openai/any", api_key=KEY, cache=Cache(tmp_path))
    lm.transport = Slow("shared")
    calls = [asyncio.create_task(lm.acall("hi")) for _ in range(5)]
    await started.wait()
    gate.set()
    assert await asyncio.gather(*calls) == [["shared"]] * 5
    assert len(lm.transport.requests) == 1
    assert sorted(entry["cache_hit"] for entry in lm.history) == [False, True, True, True, True]


async def test_a_flight_that_is_given_up_is_flown_by_the_next(tmp_path):
    started, gate = asyncio.Event(), asyncio.Event()

    class Slow(Scripted):
        async def acomplete(self, request, connection, hear=None):
            started.set()
            await gate.wait()
            return self.complete(request, connection)

    lm = LM("openai/any", api_key=KEY, cache=Cache(tmp_path))
    lm.transport = Slow("mine")
    first = asyncio.create_task(lm.acall("hi"))
    await started.wait()
    second = asyncio.create_task(lm.acall("hi"))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second == ["mine"]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_those_who_wait_share_the_failure_too(tmp_path):
    lm = LM("openai/any", api_key=KEY, cache=Cache(tmp_path), num_retries=0)
    lm.transport = Scripted(ServerError("no"), ServerError("no"))
    failures = await asyncio.gather(*[lm.acall("hi") for _ in range(2)], return_exceptions=True)
    assert [type(failure) for failure in failures] == [ServerError, ServerError]


def test_a_local_model_that_is_not_launched_goes_nowhere(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(errors.BadRequestError, match=r"call lm\.launch\(\) first"):
        LM("local/smollm2", cache=False)("my private question")
