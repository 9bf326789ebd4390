"""The LM, as in dspy 2.6: arguments, outputs and providers."""

import inspect
import json
import logging
import threading

import pytest

from runner.adapters import ChatAdapter, TextAdapter
from runner.cache import Cache
from runner.errors import ConfigError, FinetuneError
from runner.finetune.jobs.status import TrainingStatus
from runner.lm.lm import LM
from runner.providers.base import Provider
from runner.providers.local import LocalProvider
from runner.providers.openai import OpenAIProvider
from runner.types import Choice, Response
from tests.support.scripted import ASKED, KEY, an_lm

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
def test_invalid_arguments_are_refused(arguments, told):
    with pytest.raises(ConfigError, match=told):
        LM(**arguments)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({}, "nothing to send"),
        ({"messages": []}, "nothing to send"),
        ({"messages": ["hi"]}, r"messages\[0\]: a message is a dict with role and content, not 'hi'"),
        ({"messages": [{"content": "hi"}]}, r"messages\[0\]: a message is a dict"),
        ({"messages": [*ASKED, {"role": "bot", "content": "hi"}]}, r"messages\[1\]: unknown role 'bot'; allowed: assistant"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]: content is missing"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\]: content is missing"),
        ({"prompt": "hi", "temperature": -1}, "temperature must be a number of at least 0, not -1"),
        ({"prompt": "hi", "temperature": float("nan")}, "temperature must be a number"),
        ({"prompt": "hi", "temperature": "hot"}, "temperature must be a number"),
        ({"prompt": "hi", "max_tokens": 0}, "max_tokens must be a whole number of at least 1, not 0"),
        ({"prompt": "hi", "max_tokens": 1.5}, "max_tokens must be a whole number"),
        ({"prompt": "hi", "stop": object()}, "is not JSON data"),
    ],
)
def test_invalid_calls_are_refused_before_anything_is_sent(ask, call, told):
    lm = an_lm()
    with pytest.raises(ConfigError, match=told):
        ask(lm, **call)
    assert lm.transport.requests == []
    assert lm.history == []


def test_tool_messages_need_no_content(ask):
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    said = [*ASKED, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_call_id": "1", "content": "3"}]
    assert ask(an_lm(), messages=said) == ["ok"]


def test_text_models_accept_only_text():
    with pytest.raises(ConfigError, match=r"messages\[0\]: a text model takes text"):
        an_lm(model_type="text")(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}])


def test_a_prompt_is_a_user_message_and_messages_take_precedence(ask):
    lm = an_lm()
    ask(lm, "hi")
    ask(lm, messages=[{"role": "system", "content": "s"}, *ASKED])
    ask(lm, "ignored", messages=ASKED, cache=False)
    assert [request.messages for request in lm.transport.requests] == [ASKED, [{"role": "system", "content": "s"}, *ASKED], ASKED]


def test_text_prompts_have_dspys_layout(ask):
    lm = an_lm(model_type="text")
    ask(lm, "Once")
    ask(lm, messages=[{"role": "system", "content": "Be brief."}, *ASKED])
    assert [request.prompt for request in lm.transport.requests] == [
        "Once\n\nBEGIN RESPONSE:",
        "Be brief.\n\nhi\n\nBEGIN RESPONSE:",
    ]
    assert all(request.messages is None for request in lm.transport.requests)


def test_requests_hold_the_given_arguments(ask):
    lm = an_lm(top_p=0.9, seed=None, api_key=KEY, timeout=5, headers={"x": "y"}, cache_in_memory=False)
    ask(lm, "hi", temperature=0.7, stop=["a"], max_tokens=None, api_version="3", num_retries=1, rollout_id=2)
    [request], [connection] = lm.transport.requests, lm.transport.connections
    assert request.params == {"temperature": 0.7, "top_p": 0.9, "stop": ["a"]}
    assert request.rollout == 2
    assert (connection.api_key, connection.timeout_s, connection.headers) == (KEY, 5.0, {"x": "y"})
    assert connection.extra == {"api_version": "3"}
    assert lm.kwargs["temperature"] == 0.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"logprobs": True}, {"logprobs": 1}),
        ({"a": 1, "b": 2}, {"b": 1, "a": 2}),
        ({"seed": 1}, {"seed": 1.5}),
        ({"seed": 1}, {}),
        ({}, {"temperature": 0.5}),
    ],
)
def test_parameters_of_one_call_do_not_leak_into_the_next(ask, before, after):
    lm = an_lm(cache=False)
    for arguments in (before, before, after):
        ask(lm, "hi", **arguments)
    first, second, third = [request.params for request in lm.transport.requests]
    assert first == second == {"temperature": 0.0, "max_tokens": 1000} | before
    assert json.dumps(third, sort_keys=True) == json.dumps({"temperature": 0.0, "max_tokens": 1000} | after, sort_keys=True)


def test_parameters_changed_in_place_are_sent_as_changed(ask, tmp_path):
    lm = an_lm("one", "two", cache=Cache(tmp_path), stop=["a"])
    assert ask(lm, "hi") == ["one"]
    lm.kwargs["stop"].append("b")
    assert ask(lm, "hi") == ["two"]
    lm.kwargs["temperature"] = 0.5
    lm.model = "fake/other"
    assert ask(lm, "hi") == ["ok"]
    assert [request.params["temperature"] for request in lm.transport.requests] == [0.0, 0.0, 0.5]


def test_changing_a_request_does_not_change_the_lm():
    lm = an_lm()
    lm.request(prompt="hi").params["temperature"] = 2.0
    assert lm.request(prompt="hi").params["temperature"] == 0.0


def test_cloud_credentials_are_not_part_of_the_request():
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
def test_the_limit_of_reasoning_models_has_another_name(model):
    lm = LM(model, temperature=1.0, max_tokens=16_000)
    assert lm.kwargs == {"temperature": 1.0, "max_completion_tokens": 16_000}
    assert LM(model, temperature=None, max_tokens=None).request(messages=ASKED).params == {}
    assert LM(model).request(messages=ASKED).params["max_completion_tokens"] == 1000
    sent = lm.request(messages=ASKED, max_tokens=20_000).params
    assert sent == {"temperature": 1.0, "max_completion_tokens": 20_000}


@pytest.mark.parametrize("model", PLAIN)
def test_chat_models_keep_max_tokens(model):
    assert LM(model).request(messages=ASKED).params == {"temperature": 0.0, "max_tokens": 1000}


# --- outputs


def test_outputs_are_texts(ask):
    two = Response(choices=[Choice("a", "stop"), Choice("b", "stop")])
    assert ask(an_lm(two), "hi", n=2) == ["a", "b"]


def test_outputs_are_dicts_if_there_is_more_than_text(ask):
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    answer = Response(choices=[Choice("a", "stop", {"content": []}), Choice(None, "tool_calls", tool_calls=calls)])
    assert ask(an_lm(answer), "hi") == [{"text": "a"}, {"text": None, "tool_calls": calls}]
    assert ask(an_lm(answer), "hi", logprobs=True) == [
        {"text": "a", "logprobs": {"content": []}},
        {"text": None, "logprobs": None, "tool_calls": calls},
    ]


def test_a_truncated_answer_is_returned_with_a_warning_and_not_cached(ask, caplog):
    cut = Response(choices=[Choice("half", "length")])
    lm = an_lm(cut, "whole")
    with caplog.at_level(logging.WARNING, "ostinato"):
        assert ask(lm, "hi") == ["half"]
    assert "cut off at max_tokens=1000" in caplog.text
    assert ask(lm, "hi") == ["whole"]


# --- providers


class Trainer(Provider):
    """Train by renaming the model, once `go_on` is set."""

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
def test_the_provider_is_inferred_from_the_model(model, cls):
    lm = LM(model, temperature=1.0, max_tokens=16_000)
    assert type(lm.provider) is type(lm.infer_provider()) is cls


def test_the_adapter_is_inferred_from_the_model_type():
    assert isinstance(LM("fake/m").infer_adapter(), ChatAdapter)
    assert isinstance(LM("fake/m", model_type="responses").infer_adapter(), ChatAdapter)
    assert isinstance(LM("fake/m", model_type="text").infer_adapter(), TextAdapter)


def test_launch_and_kill_call_the_provider():
    provider = Trainer()
    lm = LM("fake/m", provider=provider)
    lm.launch()
    lm.kill({"force": True})
    assert provider.asked == [("launch", lm, None), ("kill", lm, {"force": True})]


def test_launch_and_kill_do_nothing_for_hosted_models():
    lm = LM("openai/gpt-4o-mini")
    lm.launch()
    lm.kill()


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4", "fake/m"])
def test_providers_without_training_raise(model):
    with pytest.raises(FinetuneError, match=rf"cannot fine-tune '{model}'"):
        LM(model).finetune([{"messages": []}])


def test_training_returns_a_future_of_an_lm():
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


def test_a_trained_local_model_does_not_keep_the_address_of_its_base():
    lm = LM("local/base", api_base="http://127.0.0.1:1/v1", api_key="none", top_p=0.5)
    tuned = lm.copy(model="local/ft-0123456789ab")
    assert tuned.kwargs.keys() & {"api_base", "api_key"} == set()
    assert (tuned.kwargs["top_p"], lm.kwargs["api_base"]) == (0.5, "http://127.0.0.1:1/v1")
    assert lm.copy(model="local/x", api_base="http://127.0.0.1:2/v1").kwargs["api_base"] == "http://127.0.0.1:2/v1"
    assert lm.copy(temperature=1.0).kwargs["api_key"] == "none"


def test_the_finetuning_model_and_its_settings_are_used():
    provider = Trainer()
    provider.go_on.set()
    lm = LM("fake/m", provider=provider, finetuning_model="fake/base", train_kwargs={"epochs": 1})
    assert lm.finetune([], "completion", {"epochs": 2}).result(timeout=20).model == "fake/base-trained"
    assert provider.asked[0][2:] == ("fake/base", [], "completion", {"epochs": 2})


def test_failed_training_raises_from_result():
    provider = Trainer()
    provider.go_on.set()
    job = LM("fake/m", provider=provider).finetune([], train_kwargs={"fail": True})
    with pytest.raises(FinetuneError, match="the loss is not a number"):
        job.result(timeout=20)
    assert job.status() == TrainingStatus.failed


def test_unknown_training_data_formats_are_refused():
    with pytest.raises(ConfigError, match="train_data_format 'chta': allowed are chat, completion, preference, grpo_chat"):
        LM("fake/m", provider=Trainer()).finetune([], "chta")


def test_a_copy_keeps_a_given_provider():
    mine = Trainer()
    lm = LM("openai/gpt-4o-mini", provider=mine)
    assert lm.copy(model="openai/gpt-4o").provider is mine
    assert lm.copy(provider=Provider()).provider is not mine
