"""Cache keys: equal for every spelling of one request, different for any two that a server can tell apart."""

import contextlib
import random

from hypothesis import assume, example, given
from hypothesis import strategies as st

from runner.cache import request_key
from runner.errors import ConfigError
from runner.types import Request
from tests.fuzz.depth import examples
from tests.fuzz.values import json_values

WHOLE = 2**53
numbers = (
    st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0, 1, 0.0, -0.0, 1.0])
)
params = st.dictionaries(st.text(max_size=6), json_values(numbers), max_size=4)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"])}, optional={"content": json_values(numbers)})
)
requests = st.builds(
    Request,
    model=st.sampled_from(["openai/a", "openai/b"]),
    model_type=st.sampled_from(["chat", "text"]),
    endpoint=st.none() | st.sampled_from(["http://127.0.0.1:1/v1", ""]),
    messages=st.none() | messages,
    prompt=st.none() | st.text(max_size=6),
    params=params,
    rollout=st.none() | st.integers(0, 3),
)


def respelled(value, dice):
    """Return the same JSON value in another spelling: whole numbers as floats or integers, other key order, lists as tuples."""
    if isinstance(value, dict):
        items = list(value.items())
        dice.shuffle(items)
        return {key: respelled(item, dice) for key, item in items}
    if isinstance(value, list):
        return dice.choice([list, tuple])(respelled(item, dice) for item in value)
    if type(value) is int and abs(value) < WHOLE:
        return dice.choice([value, float(value)])
    if type(value) is float and value.is_integer() and abs(value) < WHOLE:
        return dice.choice([value, int(value)])
    return value


def plain(value):
    """Return the JSON meaning of a value: numbers by value and apart from booleans, mappings without order."""
    if isinstance(value, dict):
        return ("object", frozenset((key, plain(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return ("list", tuple(plain(item) for item in value))
    return (isinstance(value, bool), value)


def meaning(request):
    identity = (request.model, request.model_type, request.endpoint, request.prompt, request.rollout or 0)
    return (*identity, plain(request.messages), plain(request.params))


@examples(150)
@given(requests, st.integers(0, 2**32))
def test_equal_requests_have_one_key_in_every_spelling(request, seed):
    dice = random.Random(seed)
    other = Request(
        model=request.model,
        model_type=request.model_type,
        endpoint=request.endpoint,
        messages=request.messages and [dict(reversed(message.items())) for message in request.messages],
        prompt=request.prompt,
        params=respelled(request.params, dice),
        rollout=request.rollout or 0,
    )
    assert request_key(other) == request_key(request)


@examples(200)
@given(requests, requests)
@example(Request(model="a", params={"x": True}), Request(model="a", params={"x": 1}))
@example(Request(model="a", params={"x": [1, [2]]}), Request(model="a", params={"x": [[1], 2]}))
@example(Request(model="a", params={"x": "1"}), Request(model="a", params={"x": 1}))
@example(Request(model="a", prompt=""), Request(model="a"))
@example(Request(model="a", messages=[]), Request(model="a"))
def test_different_requests_have_different_keys(one, other):
    assume(meaning(one) != meaning(other))
    assert request_key(one) != request_key(other)


@examples(150)
@given(requests, st.integers(0, 2**32))
def test_any_single_change_gives_another_key(request, seed):
    dice = random.Random(seed)
    changed = _changed({"params": request.params, "messages": request.messages, "prompt": request.prompt}, dice)
    other = Request(
        model=request.model, model_type=request.model_type, endpoint=request.endpoint, rollout=request.rollout, **changed
    )
    assume(meaning(other) != meaning(request))
    assert request_key(other) != request_key(request)


def _changed(value, dice):
    if isinstance(value, dict) and value:
        key = dice.choice(sorted(value))
        return {**value, key: _changed(value[key], dice)}
    if isinstance(value, list) and value:
        at = dice.randrange(len(value))
        return [*value[:at], _changed(value[at], dice), *value[at + 1 :]]
    if isinstance(value, dict | list):
        return value
    if isinstance(value, str):
        return value + dice.choice([" ", "\x00", "a"])
    return {None: None, True: False, False: True}[value] if value is None or isinstance(value, bool) else value + 1


@examples(200)
@given(st.dictionaries(st.text(st.characters() | st.characters(categories=["Cs"]), max_size=4), json_values(), max_size=3))
@example({"x": 10**40})
@example({"x": 1e300})
@example({"x": "\ud83d"})
@example({"x": float("inf")})
def test_values_that_are_not_json_have_no_key(given_params):
    with contextlib.suppress(ConfigError):
        assert len(bytes.fromhex(request_key(Request(model="a", params=given_params)))) == 32


def test_values_that_json_cannot_hold_are_not_taken_as_null():
    for value in (float("nan"), float("inf"), float("-inf")):
        try:
            key = request_key(Request(model="a", params={"x": [value]}))
        except ConfigError:
            continue
        assert key != request_key(Request(model="a", params={"x": [None]}))
