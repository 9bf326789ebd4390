"""Cache keys: golden keys, and what changes a key."""

import msgspec
import pytest

from runner.cache import KEY_VERSION, request_key
from runner.errors import ConfigError
from runner.lm.lm import LM
from runner.types import Request
from tests.support.golden import ASKED, KEY, REQUEST, TOOL


@pytest.mark.parametrize(
    ("request_", "key"),
    [
        (REQUEST, KEY),
        (
            Request(
                model="openai/gpt-3.5-turbo-instruct",
                model_type="text",
                prompt="Once",
                params={"temperature": 0.7, "stop": ["\n"]},
            ),
            "dfcec08e82d9fdd54babf7ee0e80a4f3206b97434045033f6c2503880ce745b9",
        ),
        (
            Request(
                model="openai/o3",
                model_type="responses",
                messages=[{"role": "system", "content": "Søk 日本語 😀"}, *ASKED],
                params={"max_completion_tokens": 16000, "temperature": 1.0},
            ),
            "6c159f60afb5d9fabc9268d5ff4183c3ae5b75698c08a0afba56f51d4e869333",
        ),
        (
            Request(
                model="local/smollm2",
                endpoint="sha256:" + "ab" * 32,
                messages=ASKED,
                params={"temperature": 0, "max_tokens": 8, "seed": 7},
                rollout=3,
            ),
            "5c5005b6d27153507a50007d308465c968f0a76e31a356d27337ffd79633beda",
        ),
        (
            Request(
                model="openai/any",
                endpoint="http://127.0.0.1:8000/v1",
                messages=ASKED,
                params={
                    "tools": [TOOL],
                    "response_format": {"type": "json_object"},
                    "logit_bias": {"50256": -100},
                    "top_p": 0.95,
                    "logprobs": True,
                },
            ),
            "c51c09b3a58044a7c44f29c66c8a1e21987b50892048c5d22d7575033856f220",
        ),
    ],
)
def test_golden_keys(request_, key):
    """These may change only with KEY_VERSION: otherwise every existing cache entry would silently become a miss."""
    assert KEY_VERSION == 1
    assert request_key(request_) == key


def changed(**changes):
    return request_key(msgspec.structs.replace(REQUEST, **changes))


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0, "max_tokens": 1000},
        {"max_tokens": 1000.0, "temperature": -0.0},
    ],
)
def test_equal_parameters_have_one_key(params):
    assert changed(params=params) == KEY


def test_equal_nested_parameters_have_one_key():
    one = {"response_format": {"b": [1.0, {"x": 2}], "a": 0}}
    other = {"response_format": {"a": 0.0, "b": [1, {"x": 2.0}]}}
    assert changed(params=one) == changed(params=other)
    assert changed(rollout=0) == KEY


def test_everything_that_changes_the_answer_is_in_the_key():
    keys = [
        KEY,
        changed(model="openai/gpt-4o"),
        changed(model_type="responses"),
        changed(endpoint="http://localhost:1/v1"),
        changed(messages=[{"role": "system", "content": "What is 2 + 2?"}]),
        changed(messages=[*ASKED, *ASKED]),
        changed(messages=None, prompt="What is 2 + 2?"),
        changed(rollout=1),
        changed(rollout=2),
        *[
            changed(params={**REQUEST.params, **more})
            for more in [
                {"temperature": 0.1},
                {"max_tokens": 1001},
                {"seed": 1},
                {"seed": True},
                {"seed": "1"},
                {"stop": "a"},
                {"stop": ["a"]},
                {"tools": [TOOL]},
                {"response_format": {"type": "json_object"}},
                {"n": 2},
            ]
        ],
    ]
    assert len(set(keys)) == len(keys)


def lm_key(**arguments):
    return request_key(LM("openai/gpt-4o-mini", **arguments).request(messages=ASKED))


@pytest.mark.parametrize(
    "access",
    [
        {"api_key": "sk-aaaaaaaaaaaaaaaaaaaaaaaa"},
        {"timeout": 3},
        {"headers": {"x": "y"}},
        {"extra_headers": {"x": "y"}},
        {"api_version": "2024-06-01"},
        {"aws_secret_access_key": "abcdefgh12345678"},
        {"aws_region_name": "eu-north-1"},
        {"vertex_credentials": "{}"},
        {"azure_ad_token": "abcdefgh"},
        {"num_retries": 1},
        {"cache_in_memory": False},
        {"seed": None},
    ],
)
def test_connection_arguments_are_not_in_the_key(access):
    assert lm_key(**access) == lm_key() == KEY


def test_the_normalised_address_is_in_the_key():
    keys = {
        lm_key(api_base=url) for url in ["http://Host:80/v1/", "http://host/v1", "http://me:pw@host/v1", "HTTP://host:80/v1?x=1"]
    }
    assert len(keys) == 1
    assert keys != {KEY}
    assert lm_key(base_url="http://host/v1") in keys
    assert lm_key(api_base="https://host/v1") not in keys
    assert lm_key(api_base="http://host:8080/v1") not in keys


@pytest.mark.parametrize("value", [object(), {"a": object()}, "half a pair: \ud83d"])
def test_parameters_that_are_not_json_are_refused(value):
    with pytest.raises(ConfigError, match="a request to openai/gpt-4o-mini is not JSON data"):
        changed(params={"x": value})
