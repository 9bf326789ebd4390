"""Transports, through the LM, against a real server: requests and answers on the wire."""

import json

import pytest

from runner.types import Usage
from tests.support.server import Raw, Reply
from tests.support.transports import CALLS, KEY, QUIET, SCHEMA, TOOLS, response_of, served_lm

pytestmark = QUIET


# --- requests


def test_a_chat_request_is_exactly_this(server, ask):
    assert ask(served_lm(server), "hi") == ["ok"]
    assert server.last.path == "/v1/chat/completions"
    assert server.last.body == {
        "model": "any",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.0,
        "max_tokens": 1000,
    }


def test_a_text_request_is_exactly_this(server, ask):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert ask(served_lm(server, model_type="text"), messages=messages) == ["ok"]
    assert server.last.path == "/v1/completions"
    assert server.last.body == {
        "model": "any",
        "prompt": "Be brief.\n\nhi\n\nBEGIN RESPONSE:",
        "temperature": 0.0,
        "max_tokens": 1000,
    }


def test_a_responses_request_is_exactly_this(server, ask):
    assert ask(served_lm(server, model_type="responses"), "hi") == ["ok"]
    assert server.last.path == "/v1/responses"
    assert server.last.body == {
        "model": "any",
        "input": [{"role": "user", "content": "hi"}],
        "temperature": 0.0,
        "max_output_tokens": 1000,
    }


def test_our_own_arguments_are_not_sent(server, ask, model_type):
    lm = served_lm(
        server, model_type=model_type, temperature=None, max_tokens=None, cache=True, cache_in_memory=False, top_p=None
    )
    ask(lm, "hi", rollout_id=3, cache=False, num_retries=1)
    said = {"chat": "messages", "text": "prompt", "responses": "input"}[model_type]
    assert set(server.last.body) == {"model", said}


@pytest.mark.parametrize("model", ["openai/o3-mini", "openai/gpt-5-mini"])
def test_reasoning_models_get_max_completion_tokens(server, ask, model):
    ask(served_lm(server, model, temperature=1.0, max_tokens=16_000), "hi")
    assert server.last.body["max_completion_tokens"] == 16_000
    assert "max_tokens" not in server.last.body
    ask(served_lm(server, model, temperature=None, max_tokens=None), "hi")
    assert set(server.last.body) == {"model", "messages"}


def test_reasoning_models_use_the_responses_format(server, ask):
    lm = served_lm(server, "openai/o3-mini", model_type="responses", temperature=None, max_tokens=16_000, reasoning_effort="low")
    ask(lm, "hi")
    assert server.last.body == {
        "model": "o3-mini",
        "input": [{"role": "user", "content": "hi"}],
        "max_output_tokens": 16_000,
        "reasoning": {"effort": "low"},
    }


def test_parameters_of_a_call_override_those_of_the_lm(server, ask):
    ask(served_lm(server, top_p=0.5, seed=1), "hi", temperature=0.7, max_tokens=5, seed=2, stop=["\n"], n=2)
    sent = server.last.body
    assert {name: sent[name] for name in ("temperature", "max_tokens", "seed", "top_p", "stop", "n")} == {
        "temperature": 0.7,
        "max_tokens": 5,
        "seed": 2,
        "top_p": 0.5,
        "stop": ["\n"],
        "n": 2,
    }


def test_tools_and_response_format_in_chat(server, ask):
    ask(served_lm(server), "hi", tools=TOOLS, tool_choice="auto", response_format=SCHEMA)
    sent = server.last.body
    assert (sent["tools"], sent["tool_choice"], sent["response_format"]) == (TOOLS, "auto", SCHEMA)
    assert set(sent) == {"model", "messages", "temperature", "max_tokens", "tools", "tool_choice", "response_format"}


def test_tools_and_response_format_in_responses(server, ask):
    ask(served_lm(server, model_type="responses"), "hi", tools=TOOLS, response_format=SCHEMA)
    assert server.last.body["tools"] == [{"type": "function", **TOOLS[0]["function"]}]
    assert server.last.body["text"] == {"format": {"type": "json_schema", **SCHEMA["json_schema"]}}


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
    },
    {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "call_1", "content": "3"},
]


def test_a_conversation_with_parts_and_tools_in_chat(server, ask):
    ask(served_lm(server), messages=CONVERSATION)
    sent = server.last.body["messages"]
    assert sent[:3] == CONVERSATION[:3]
    assert sent[3]["tool_calls"] == CALLS
    assert sent[4] == CONVERSATION[4]


def test_a_conversation_with_parts_and_tools_in_responses(server, ask):
    ask(served_lm(server, model_type="responses"), messages=CONVERSATION)
    assert server.last.body["input"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"},
            ],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"x": 2}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "3"},
    ]


def test_keys_and_headers_are_sent(server, ask, model_type):
    server.api_key = KEY
    assert ask(served_lm(server, model_type=model_type, headers={"X-Team": "blue"}), "hi") == ["ok"]
    assert server.last.headers["authorization"] == f"Bearer {KEY}"
    assert server.last.headers["x-team"] == "blue"


def test_a_local_model_is_sent_by_its_bare_name(server, ask, monkeypatch):
    from runner.providers.base import Provider

    assert ask(served_lm(server, "local/org/model", provider=Provider()), "hi") == ["ok"]
    assert server.last.body["model"] == "org/model"


def test_unicode_is_sent_and_returned_unchanged(server, ask, model_type):
    server.script(Reply(lambda call: f"du sa: {call.question} 日本語 😀"))
    assert ask(served_lm(server, model_type=model_type), "Ærlig? 😀")[0].startswith("du sa: Ærlig? 😀")


# --- answers


def test_all_parts_of_usage_are_read(server, ask, model_type):
    details = {
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    server.script(Reply(usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, **details}))
    lm = served_lm(server, model_type=model_type)
    ask(lm, "hi")
    assert response_of(lm).usage == Usage(7, 5, 12, 4, 2, 1)
    assert lm.history[-1]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "total_tokens": 12,
        "cached_tokens": 4,
        "reasoning_tokens": 2,
        "cache_write_tokens": 1,
    }


def test_missing_usage_stays_unknown(server, ask):
    server.script(Reply(usage=None))
    lm = served_lm(server)
    assert ask(lm, "hi") == ["ok"]
    assert response_of(lm).usage is None


def test_model_fingerprint_and_id_are_read(server, ask, model_type):
    server.script(Reply("four", model="any-2026-01-01", fingerprint="fp_1"))
    lm = served_lm(server, model_type=model_type)
    ask(lm, "hi")
    answer = response_of(lm)
    assert (answer.model, answer.created) == ("any-2026-01-01", 1_700_000_000)
    assert answer.id
    assert [(choice.text, choice.finish_reason) for choice in answer.choices] == [("four", "stop")]
    if model_type != "responses":
        assert answer.system_fingerprint == "fp_1"


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_finish_reasons_are_read(server, ask, model_type, reason):
    server.script(Reply("half", finish_reason=reason))
    lm = served_lm(server, model_type=model_type)
    assert ask(lm, "hi") == ["half"]
    assert response_of(lm).choices[0].finish_reason == reason


def test_an_answer_may_hold_only_reasoning(server, ask):
    for model_type in ("chat", "responses"):
        server.script(Reply(None, finish_reason="length", reasoning="Let me see"))
        lm = served_lm(server, model_type=model_type)
        assert ask(lm, "hi") == [None]
        assert response_of(lm).choices[0].reasoning == "Let me see"


def test_a_refusal_is_read_as_text(server, ask):
    message = {"role": "assistant", "content": None, "refusal": "I cannot."}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "any"}
    server.script(Raw(json.dumps({**body, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()))
    lm = served_lm(server)
    assert ask(lm, "hi") == ["I cannot."]
    assert response_of(lm).choices[0].finish_reason == "refusal"


def test_several_answers_are_returned(server, ask):
    for model_type in ("chat", "text"):
        assert ask(served_lm(server, model_type=model_type), "hi", n=3) == ["ok", "ok", "ok"]


def test_logprobs_are_returned(server, ask):
    logprobs = {"content": [{"token": "ok", "bytes": [111, 107], "logprob": -0.25, "top_logprobs": []}]}
    server.script(Reply(logprobs=logprobs))
    [output] = ask(served_lm(server), "hi", logprobs=True, top_logprobs=1)
    assert output["text"] == "ok"
    assert output["logprobs"]["content"][0]["logprob"] == -0.25
    assert (server.last.body["logprobs"], server.last.body["top_logprobs"]) == (True, 1)
    json.dumps(output)


def test_tool_calls_look_the_same_in_both_formats(server, ask):
    for model_type in ("chat", "responses"):
        server.script(Reply(None, finish_reason="tool_calls", tool_calls=CALLS))
        assert ask(served_lm(server, model_type=model_type), "hi", tools=TOOLS) == [{"text": None, "tool_calls": CALLS}]


def test_half_a_surrogate_pair_is_replaced(server, ask, model_type, tmp_path):
    server.script(Reply("cut \ud83d"))
    lm = served_lm(server, model_type=model_type, cache=True)
    assert ask(lm, "hi") == ask(lm, "hi") == ["cut ?"]
    assert server.count == 1
