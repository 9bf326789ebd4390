"""A streamed answer is the answer: both transports read it as the same answer that is not streamed, or fail as they do."""

from __future__ import annotations

import asyncio
import gc
import warnings

import msgspec
import pytest

from runner import errors
from runner.transport import DirectTransport, LiteLLMTransport
from runner.transport.streamed import StreamedAnswer
from runner.types import Choice, Connection, Request, Response, Usage
from tests.support.answers import CASES
from tests.support.seen_streams import CALL, FOUR, PLAIN, ROLE, SPENT, STOP, STREAMS, TEXT, delta, stream
from tests.support.server import Raw, Reply, Server, Status, Stream
from tests.support.streams import DONE, events_of, of_anthropic, of_gemini
from tests.support.transports import KEY, QUIET, TOOLS, response_of, served_lm

pytestmark = QUIET

ANSWERS = {case.name: case for case in CASES if not isinstance(case.body, bytes)}
SEEN = {f"{case.vendor}: {case.name}": case for case in STREAMS}


def request_of(name, kind="chat"):
    if kind == "text":
        return Request(model="openai/any", model_type="text", prompt=name)
    return Request(model="openai/any", messages=[{"role": "user", "content": name}])


async def read(transport, request, connection):
    try:
        response = await transport.acomplete(request, connection)
    except errors.LMError as error:
        error.__context__ = None  # it holds litellm's clients, which would stay open
        return error.with_traceback(None)
    return msgspec.structs.replace(response, first_token_s=None)


def behave(call):
    """Send an answer whole, or in events if the request asks for them; or a stream as it was seen."""
    if call.question in SEEN:
        case = SEEN[call.question]
        return Stream((case.sent,), "keep" if case.whole else "close")
    case = ANSWERS[call.question]
    return Stream((*events_of(case.body), DONE)) if call.body.get("stream") else Raw(case.sent)


@pytest.fixture(scope="module")
def read_by():
    """Ask for every answer at once, of one server: not streamed, and streamed through both transports."""

    async def everything(server):
        plain, streamed = (Connection(api_base=server.url, api_key=KEY, stream=stream, silence_s=20) for stream in (False, True))
        found = {}
        for name, transport, connection in (
            ("plain", DirectTransport(), plain),
            ("direct", DirectTransport(), streamed),
            ("litellm", LiteLLMTransport(), streamed),
        ):
            asked = {case: request_of(case, ANSWERS[case].kind) for case in ANSWERS}
            asked |= {case: request_of(case, SEEN[case].kind) for case in SEEN if name != "plain"}
            answers = await asyncio.gather(*(read(transport, request, connection) for request in asked.values()))
            found[name] = dict(zip(asked, answers, strict=True))
            await transport.aclose()
        return found

    with Server(behave) as server:
        yield asyncio.run(everything(server))
        assert {call.body.get("stream") for call in server.calls} == {None, True}
    with warnings.catch_warnings():  # collect here what litellm leaves to the garbage collector
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.mark.parametrize("by", ["direct", "litellm"])
@pytest.mark.parametrize("name", ANSWERS)
def test_streaming_gives_the_same_response_as_not_streaming(read_by, name, by):
    plain, streamed = read_by["plain"][name], read_by[by][name]
    if isinstance(plain, Response):
        assert streamed == plain
    else:
        assert (type(streamed), streamed.status) == (type(plain), plain.status), streamed


@pytest.mark.parametrize("by", ["direct", "litellm"])
@pytest.mark.parametrize("name", SEEN)
def test_streams_of_the_wild_are_read(read_by, name, by):
    case, found = SEEN[name], read_by[by][name]
    if by == "litellm" and case.kind == "text":
        pytest.skip("text completions through litellm are not streamed")
    if isinstance(case.expected, type):
        assert type(found) is case.expected, found
        return
    assert isinstance(found, Response), found
    assert (found.choices, found.usage) == (case.expected, case.usage)


@pytest.mark.parametrize("name", SEEN)
def test_a_stream_may_be_cut_anywhere(name):
    case, connection = SEEN[name], Connection()
    for size in (1, 7, 64, len(case.sent) + 1):
        answered = StreamedAnswer(0.0)
        for at in range(0, len(case.sent), size):
            if not answered.ended:
                answered.feed([case.sent[at : at + size]])
        if isinstance(case.expected, type):
            with pytest.raises(errors.LMError):
                answered.response(request_of(name), connection)
        else:
            assert answered.response(request_of(name), connection).choices == case.expected, size


def test_every_stream_says_where_it_was_seen():
    assert len(SEEN) == len(STREAMS) >= 70
    assert all(case.vendor and case.source for case in STREAMS)


# --- what is asked for


TRANSPORTS = pytest.mark.parametrize("chosen", ["direct", "litellm"])


def transport_of(name):
    return DirectTransport() if name == "direct" else LiteLLMTransport()


@pytest.fixture
def server():
    with Server() as running:
        yield running


def streaming(server, chosen, **arguments):
    lm = served_lm(server, **{"stream": "always", **arguments})
    lm.transport = transport_of(chosen)
    return lm


@TRANSPORTS
def test_a_stream_and_its_usage_are_asked_for(server, chosen):
    lm = streaming(server, chosen, n=2)
    assert lm("hi", tools=TOOLS) == ["ok", "ok"]
    sent = server.last.body
    assert (sent["stream"], sent["stream_options"], sent["tools"]) == (True, {"include_usage": True}, TOOLS)
    assert response_of(lm).usage is not None
    assert response_of(lm).first_token_s is None


def test_the_responses_api_is_streamed(server):
    server.otherwise = Reply("four")
    lm = served_lm(server, "openai/gpt-4o", model_type="responses", stream="always")
    assert lm("hi") == ["four"]
    assert server.last.body["stream"] is True
    assert "stream_options" not in server.last.body
    assert response_of(lm).usage.total_tokens == 10


REFUSALS = [
    ("stream_options", Status(400, "Unrecognized request argument supplied: stream_options", type="invalid_request_error")),
    (
        "stream_options",
        Status(422, body=b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Not permitted"}]}'),
    ),
    ("stream_options", Status(400, "Unknown parameter: 'stream_options.include_usage'.")),
    (
        "stream",
        Status(
            400,
            body=b'{"error": {"message": "Your organization must be verified to stream this model.", "type": "x",'
            b' "param": "stream", "code": "unsupported_value"}}',
        ),
    ),
]
"""What Azure, Mistral, OpenAI-like gateways and OpenAI say when they do not take a field."""


@TRANSPORTS
@pytest.mark.parametrize(("field", "refusal"), REFUSALS)
def test_a_field_that_is_refused_is_left_out_from_then_on(server, chosen, field, refusal):
    server.otherwise = lambda call: refusal if field in call.body else Reply()
    lm = streaming(server, chosen)
    assert [lm("one"), lm("two")] == [["ok"], ["ok"]]
    assert [field in call.body for call in server.calls] == [True, False, False]
    assert all(("stream" in call.body) == (field != "stream") for call in server.calls[1:])


@TRANSPORTS
def test_other_refusals_stay_refusals(server, chosen):
    server.script(Status(400, "the prompt is not valid"))
    with pytest.raises(errors.BadRequestError, match="the prompt is not valid"):
        streaming(server, chosen)("hi")
    assert server.count == 1


# --- silence


STALLS = {
    "nothing": Stream((), "hang"),
    "in the middle": Stream((stream(ROLE, TEXT, done=False),), "hang"),
    "before the end": Stream((stream(ROLE, TEXT, SPENT, done=False),), "hang"),
}


@TRANSPORTS
@pytest.mark.parametrize("stall", STALLS)
def test_a_silent_stream_is_given_up_and_the_setting_is_named(server, chosen, stall):
    server.script(STALLS[stall])
    with pytest.raises(errors.LMTimeoutError, match=r"nothing came for 0\.2 s; .* raise limits\.silence_s"):
        streaming(server, chosen, silence=0.2)("hi")
    assert server.count == 1


@TRANSPORTS
def test_comments_are_a_sign_of_life(server, chosen):
    steps = [step for _ in range(5) for step in (0.1, b": keep-alive\n\n")]
    server.script(Stream((*steps, PLAIN)))
    assert streaming(server, chosen, silence=0.4)("hi") == ["4"]


@TRANSPORTS
def test_an_answer_that_never_ends_meets_the_total(server, chosen, monkeypatch):
    monkeypatch.setattr("runner.lm.streaming.SLOWEST", 10_000)
    server.script(Stream(tuple(step for _ in range(40) for step in (stream(TEXT, done=False), 0.05)), "hang"))
    with pytest.raises(errors.LMTimeoutError, match=r"no answer within 0\.4 s; .* raise limits\.timeout_s"):
        streaming(server, chosen, timeout=0.3, max_tokens=1000)("hi")


@TRANSPORTS
def test_a_server_that_leaves_the_connection_open_after_the_end_has_answered(server, chosen, monkeypatch):
    monkeypatch.setattr("runner.transport.direct.END_S", 0.1)
    server.script(Stream((PLAIN,), "hang"))
    assert streaming(server, chosen, silence=20)("hi") == ["4"]


def test_the_connection_is_kept_for_the_next_answer(server):
    server.otherwise = Stream((PLAIN,))
    lm = streaming(server, "direct")

    async def twice():
        try:
            first = await lm.acall("one")
            [kept] = server.connections
            second = await lm.acall("two")
            return first, second, {kept} == server.connections
        finally:
            await lm.aclose()

    assert asyncio.run(twice()) == (["4"], ["4"], True)
    assert response_of(lm).choices == FOUR
    assert STOP["choices"][0]["finish_reason"] == "stop"


# --- formats that are not OpenAI's, through litellm


def anthropic(*blocks, **more):
    return Stream(tuple(of_anthropic(*blocks, **more)))


def gemini(*texts, **more):
    return Stream(tuple(of_gemini(*texts, **more)))


FORTY_TWO = ("text", "text", ["4", "2"])
OTHERS = [
    ("anthropic/c", anthropic(FORTY_TWO), [Choice("42", "stop")]),
    ("anthropic/c", anthropic(("thinking", "thinking", ["2 ", "+ 2"]), FORTY_TWO), [Choice("42", "stop", reasoning="2 + 2")]),
    ("anthropic/c", anthropic(FORTY_TWO, reason="max_tokens"), [Choice("42", "length")]),
    ("anthropic/c", anthropic(("text", "text", ["[DONE]"])), [Choice("[DONE]", "stop")]),
    (
        "anthropic/c",
        anthropic(("tool_use", "partial_json", ['{"x"', ": 2}"]), reason="tool_use"),
        [Choice(None, "tool_calls", tool_calls=[CALL])],
    ),
    ("anthropic/c", anthropic(FORTY_TWO, ends=False), errors.MalformedError),
    (
        "anthropic/c",
        Stream((b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error"}}\n\n',)),
        errors.LMError,
    ),
    ("gemini/g", gemini("4", "2"), [Choice("42", "stop")]),
    ("gemini/g", gemini("4", "2", reason="MAX_TOKENS"), [Choice("42", "length")]),
    ("gemini/g", gemini("4", "2", ends=False), errors.MalformedError),
    ("mistral/m", Stream((PLAIN,)), FOUR),
    ("mistral/m", Stream((stream(ROLE, TEXT, SPENT, done=False),)), errors.MalformedError),
    ("deepseek/d", Stream((PLAIN,)), FOUR),
    ("hosted_vllm/m", Stream((stream(delta({"content": "data: [DONE]"}), STOP, SPENT),)), [Choice("data: [DONE]", "stop")]),
    ("hosted_vllm/m", Stream((stream(ROLE, TEXT, delta({}, "abort"), SPENT),)), errors.ServerError),
]
"""The model, what its server sends, and the answers or the class of the error."""


@pytest.mark.parametrize("number", range(len(OTHERS)))
@pytest.mark.parametrize("way", ["sync", "async"])
def test_formats_of_other_providers_are_streamed_through_litellm(number, way):
    model, sent, expected = OTHERS[number]
    request = Request(model=model, messages=[{"role": "user", "content": "hi"}])
    transport = LiteLLMTransport()

    async def ask(connection):
        try:
            return await transport.acomplete(request, connection)
        finally:
            await transport.aclose()

    with Server(sent) as server:
        connection = Connection(api_base=server.url, api_key=KEY, stream=True, silence_s=20)
        answer = (lambda: transport.complete(request, connection)) if way == "sync" else (lambda: asyncio.run(ask(connection)))
        if isinstance(expected, type):
            with pytest.raises(expected):
                answer()
            return
        response = answer()
        assert (response.choices, response.usage.total_tokens) == (expected, Usage(7, 3, 10).total_tokens)
        assert response.first_token_s is not None
