"""Which answers are streamed, how long an attempt may take, and what is retried after a timeout."""

import asyncio
import logging

import pytest

from runner.build import model as build
from runner.cache import request_key
from runner.config.compose import compose
from runner.errors import ConfigError, ConnectionLostError, LMTimeoutError, ServerError
from runner.lm.attempt import may_be_billed
from runner.lm.lm import LM
from runner.lm.streaming import LONG_ANSWER
from runner.network.retry import TIMEOUT_ATTEMPTS, RetryPolicy, without_sleeping
from tests.support.seen_streams import ROLE, TEXT, stream
from tests.support.server import Hang, Server, Stream
from tests.support.transports import KEY

SHORT = {"max_tokens": 1000}
HERE = {"api_base": "http://127.0.0.1:8000/v1", "api_key": KEY}


def connection(model, **arguments):
    return LM(model, **arguments).channel().connection


@pytest.mark.parametrize(
    ("model", "arguments", "streamed"),
    [
        ("openai/gpt-4o-mini", SHORT, False),
        ("openai/gpt-4o-mini", {"max_tokens": LONG_ANSWER}, True),
        ("openai/gpt-4o-mini", {"max_tokens": None}, True),
        ("openai/o3", SHORT, True),
        ("openai/gpt-5-mini", SHORT, True),
        ("openai/gpt-5.1", SHORT, False),
        ("openai/gpt-5.1", {**SHORT, "reasoning_effort": "high"}, True),
        ("deepseek/deepseek-reasoner", SHORT, True),
        ("gemini/gemini-2.5-flash", SHORT, True),
        ("anthropic/claude-sonnet-4-5", SHORT, False),
        ("anthropic/claude-sonnet-4-5", {**SHORT, "thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ("openai/my-gpt-5-finetune", {**SHORT, **HERE}, False),
        ("openai/any", {**SHORT, **HERE}, False),
        ("openai/any", {**SHORT, **HERE, "stream": "always"}, True),
        ("openai/any", {**SHORT, **HERE, "stream": True}, True),
        ("openai/o3", {**SHORT, "stream": "never"}, False),
        ("openai/o3", {**SHORT, "stream": False}, False),
        ("fake/m", {"stream": "always"}, False),
    ],
)
def test_answers_that_may_be_long_are_streamed(model, arguments, streamed):
    assert connection(model, **arguments).stream is streamed


def test_the_total_follows_the_longest_answer():
    assert connection("openai/any", **HERE, max_tokens=1000, timeout=120).timeout_s == 120
    assert connection("openai/any", **HERE, max_tokens=1000, timeout=120, stream="always").timeout_s == 220
    assert connection("openai/any", **HERE, max_tokens=64_000, timeout=120).timeout_s == 6_520
    assert connection("openai/o3", max_tokens=None, timeout=120).timeout_s == 120 + 100_000 / 10
    assert connection("openai/any", **HERE, max_tokens=64_000).timeout_s is None
    lm = LM("openai/any", **HERE, timeout=120, stream="always")
    assert lm.channel({"max_tokens": 5}).connection.timeout_s == 120.5


def test_a_config_says_how_answers_are_waited_for():
    base = ["model=server", "limits.timeout_s=7"]
    plain = build.lm(compose(base).config()).channel().connection
    assert (plain.stream, plain.timeout_s, plain.silence_s) == (False, 7, 300)
    streamed = build.lm(compose([*base, "limits.stream=always", "limits.silence_s=9"]).config()).channel().connection
    assert (streamed.stream, streamed.timeout_s, streamed.silence_s) == (True, 107, 9)
    with pytest.raises(ConfigError, match=r"model\.params\.stream"):
        build.lm(compose([*base, "+model.params.stream=true"]).config())


def test_an_unknown_choice_is_a_config_error():
    with pytest.raises(ConfigError, match="stream 'sometimes': allowed are auto, always, never"):
        connection("openai/any", **HERE, stream="sometimes")


def test_streaming_is_no_part_of_a_request_nor_of_its_key():
    asked = [LM("openai/any", **HERE, stream=stream, silence=4).request(messages=[]) for stream in ("always", "never", "auto")]
    assert len({request_key(request) for request in asked}) == 1
    assert asked[0].params == {"temperature": 0.0, "max_tokens": 1000}


def test_a_timeout_is_retried_twice_at_most():
    policy = RetryPolicy(max_attempts=8)

    def retried(error):
        return [policy.wait(error, attempt, 0) is not None for attempt in range(1, 8)]

    assert TIMEOUT_ATTEMPTS == 3
    for late in (LMTimeoutError("x"), LMTimeoutError("x", status=504)):
        assert retried(late) == [True, True] + [False] * 5
    unsent = LMTimeoutError("no connection in time")
    unsent.sent = False
    assert all(retried(unsent))
    assert policy.wait(LMTimeoutError("x"), 5, 0, alike=2) is not None


@pytest.mark.parametrize("stream", ["always", "never"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_server_that_never_answers_is_asked_three_times(stream, way):
    with Server(Hang()) as server:
        lm = LM("openai/any", api_base=server.url, api_key=KEY, cache=False, stream=stream, timeout=0.2, silence=0.1)

        async def ask():
            try:
                await lm.acall("hi")
            finally:
                await lm.aclose()

        with without_sleeping(), pytest.raises(LMTimeoutError, match=r"raise limits\.(silence_s|timeout_s)") as caught:
            lm("hi") if way == "sync" else asyncio.run(ask())
    assert (server.count, caught.value.attempts) == (3, 3)
    assert may_be_billed(caught.value)


def test_a_stream_that_broke_off_is_asked_again_and_may_be_billed():
    half = stream(ROLE, TEXT, done=False)
    with Server() as server:
        server.script(Stream((half,), "reset"), Stream((half,)), Stream((half, b'data: {"error": {"code": 500}}\n\n')))
        lm = LM("openai/any", api_base=server.url, api_key=KEY, cache=False, stream="always")
        with without_sleeping():
            assert lm("hi") == ["ok"]
    assert server.count == 4


def test_what_came_before_an_error_may_be_billed():
    error = ServerError("it broke", status=400)
    assert not may_be_billed(error)
    error.begun = True
    assert may_be_billed(error)
    assert may_be_billed(ConnectionLostError("x"))


def test_what_a_server_refuses_is_said_once(caplog):
    from runner.transport.asking import learn, stream_fields
    from runner.types import Connection, Request

    request, here = Request(model="openai/any", messages=[]), Connection(api_base="http://refuses.invalid", stream=True)
    error = ServerError("no")
    error.parameter = "stream_options"
    asked = stream_fields(request, here)
    with caplog.at_level(logging.WARNING, "ostinato"):
        assert learn(error, asked, request, here)
        assert learn(error, asked, request, here)
    assert [record.getMessage() for record in caplog.records] == [
        "stream_options is refused for openai/any: streamed answers do not say what they have used"
    ]
    assert stream_fields(request, here) == {"stream": True}
    assert not learn(error, stream_fields(request, here), request, here)
