"""Bodies of requests: encoded in part, they are the bytes that they are when they are encoded whole."""

from __future__ import annotations

import json

import msgspec
import pytest

from runner.transport.body import Bodies
from runner.types import Connection, Request

SAID = [{"role": "user", "content": 'é "quoted" \\ text'}]
STREAMING = {"stream": True, "stream_options": {"include_usage": True}}
REQUESTS = {
    "plain": Request(model="openai/m", messages=SAID, params={"temperature": 0.0, "max_tokens": 5}),
    "without parameters": Request(model="openai/org/m", messages=SAID),
    "text": Request(model="openai/m", model_type="text", prompt="say", params={"stop": None}),
    "embedding": Request(model="openai/m", model_type="embedding", prompt="say"),
    "nested": Request(model="openai/m", messages=SAID, params={"tools": [{"a": 1}], "seed": 1}),
    "extra body": Request(model="openai/m", messages=SAID, params={"seed": 1, "extra_body": {"top_k": 3, "seed": 2}}),
    "the model is another": Request(model="openai/m", messages=SAID, params={"model": "other"}),
    "the messages are others": Request(model="openai/m", messages=SAID, params={"extra_body": {"messages": []}}),
}
CONNECTIONS = {
    "plain": Connection(),
    "an adapter": Connection(body={"lora": [{"id": 0, "scale": 1.0}]}),
    "a field": Connection(body={"seed": 9}),
    "messages": Connection(body={"messages": "none"}),
}


def whole(request, connection, streaming):
    """Return the body as it is documented: later fields replace earlier ones in their places."""
    said = {"chat": "messages", "text": "prompt", "embedding": "input"}[request.model_type]
    params = {name: value for name, value in request.params.items() if name != "extra_body"}
    fields = {"model": request.model.partition("/")[2], said: request.messages or request.prompt, **params, **streaming}
    return msgspec.json.encode(fields | request.params.get("extra_body", {}) | connection.body)


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("streaming", [{}, STREAMING], ids=["whole", "streamed"])
def test_bodies_are_those_of_the_whole(connection, streaming):
    bodies = Bodies(CONNECTIONS[connection])
    for _ in range(2):
        for request in REQUESTS.values():
            for _ in range(2):  # the second is encoded in part
                assert bodies.of(request, streaming) == whole(request, CONNECTIONS[connection], streaming)


def test_parameters_that_are_equal_and_not_the_same_are_told_apart():
    bodies = Bodies(Connection())
    values = [1, 1.0, True, "1", None]
    sent = [bodies.of(Request(model="openai/m", messages=SAID, params={"seed": value})) for value in values]
    assert [repr(json.loads(one)["seed"]) for one in sent] == [repr(value) for value in values]


def test_what_is_changed_in_place_is_sent():
    params, more = {"seed": 1, "tools": [1]}, {"lora": [1]}
    bodies, request = Bodies(Connection(body=more)), Request(model="openai/m", messages=SAID, params=params)
    for change in (lambda: None, lambda: params["tools"].append(2), lambda: params.pop("tools"), lambda: more["lora"].append(2)):
        change()
        assert json.loads(bodies.of(request)) == {"model": "m", "messages": SAID, **params, **more}
    bodies = Bodies(Connection())
    for params["seed"] in (1, 2):
        assert json.loads(bodies.of(request))["seed"] == params["seed"]
