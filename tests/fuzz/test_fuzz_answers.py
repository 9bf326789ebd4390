"""Any answer of a server gives a Response or an LMError, and a Response reads back unchanged from the cache and the record."""

import json
import math
import random

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.answers import without_thinking
from runner.answers.thinking import MARKS, split
from runner.errors import LMError
from runner.network.delay import retry_after
from runner.network.refusal import classify
from runner.network.said import said
from runner.transport import DirectTransport
from runner.transport.answer import read
from runner.transport.base import failure, malformed, refused
from runner.types import Connection, Request, Response, Sample
from tests.fuzz.depth import examples
from tests.fuzz.values import json_values
from tests.support.loopback import Loopback, Script

MESSAGES = [{"role": "user", "content": "hi"}]
REQUESTS = {
    "chat": Request(model="openai/any", messages=MESSAGES),
    "text": Request(model="openai/any", model_type="text", prompt="hi"),
}
HERE = Connection(api_base="http://127.0.0.1:9/v1", api_key="none")

SURROGATES = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=8)
ANY = json_values(text=SURROGATES)
KINDS = st.sampled_from(["chat", "text"])


def answer(kind, text="4"):
    """Return a complete valid answer."""
    said = {"message": {"role": "assistant", "content": text}} if kind == "chat" else {"text": text}
    details = {"prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1}}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, **details}
    choice = {"index": 0, **said, "finish_reason": "stop", "logprobs": {"content": [{"token": "4", "logprob": -0.1}]}}
    tools = [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    calling = {"index": 1, "message": {"role": "assistant", "content": None, "tool_calls": tools}, "finish_reason": "tool_calls"}
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]}, {"type": "text", "text": text}]
    more = {"refusal": None, "reasoning": {"content": "a"}, "reasoning_details": [{"type": "reasoning.text", "text": "a"}]}
    hidden = {"provider_specific_fields": {"reasoning": "a", "refusal": None}}
    thinking = {"index": 2, "message": {"role": "assistant", "content": parts, **more, **hidden}, "finish_reason": "length"}
    thinking |= {"error": {}, "provider_specific_fields": {"native_finish_reason": "model_length"}}
    choices = [choice, calling, thinking] if kind == "chat" else [choice]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "any"}
    return {**head, "choices": choices, "usage": usage, "system_fingerprint": "fp"}


def places(value, at=()):
    """Yield the path of every part of a JSON value."""
    yield at
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*at, key))


@st.composite
def nearly(draw):
    """Draw a valid answer with one to three values replaced or missing."""
    made = answer(draw(KINDS))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from([place for place in places(made) if place]))
        holder = made
        for key in at[:-1]:
            holder = holder[key]
        if draw(st.booleans()) or isinstance(holder, list):
            holder[at[-1]] = draw(ANY)
        else:
            del holder[at[-1]]
    return json.dumps(made).encode()


def torn(data, seed):
    """Draw `data` with bytes cut off, changed or inserted."""
    dice = random.Random(seed)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(data) + 1)
        data = dice.choice([data[:at], data[at:], data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :], data + data[:at]])
    return data


good = KINDS.map(lambda kind: json.dumps(answer(kind, "4 \u00e9 \U0001f600")).encode())
bodies = st.one_of(
    st.binary(max_size=40),
    ANY.map(lambda value: json.dumps(value).encode()),
    nearly(),
    nearly(),
    st.builds(torn, good, st.integers(0, 2**32)),
)
NASTY = [
    b"",
    b"null",
    b"\xef\xbb\xbf" + json.dumps(answer("chat")).encode(),
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"choices": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b'{"choices":[{"message":{"content":"x"},"logprobs":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}]}",
    b'{"choices":[{"message":{"content":"\\ud83d"}}]}',
    b'{"choices":[{"message":{"content":"x"},"logprobs":["\\ud83d"]}]}',
    b'{"choices":[{"message":{"content":"x"},"logprobs":{"\\ud83d":1}}]}',
    b'{"choices":[{"message":{"content":"x"},"logprobs":1e999}]}',
    b'{"choices":[{"message":{"content":"x"},"logprobs":' + b"9" * 5000 + b"}]}",
    b'{"choices":[{"message":{"content":"x"},"logprobs":NaN}]}',
    b'{"choices":[{"message":{"content":"x"}}],"created":1e400}',
    b'{"choices":[{"message":{"content":"x"}}],"created":18446744073709551616}',
    b'{"choices":[{"message":{"content":"x"}}],"created":"1700000000"}',
    b'{"choices":[{"message":{"content":"x"}}],"created":1700000000.5}',
    b'{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":1}}',
    b'{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":-5,"completion_tokens":1}}',
    b'{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":7.0,"completion_tokens":3.0}}',
    b'{"choices":[{"message":{"content":"x"}}],"usage":"none"}',
    b'{"choices":[{"message":{"content":[{"type":"text","text":"x"}]}}]}',
    b'{"choices":[{"message":{"content":"x","tool_calls":[{"function":{"arguments":{"a":1}}}]}}]}',
    b'{"choices":[{"message":null,"text":null}]}',
    b'{"choices":[null]}',
    b'{"choices":{}}',
    b'{"error":{"message":"overloaded"}}',
    b"data: {}\n\n",
    b"<html>404</html>",
]


def check(read):
    """Check that `read()` gives a Response that reads back unchanged, or an LMError with a message."""
    try:
        response = read()
    except LMError as error:
        refused = error
    else:
        _journeys(response)
        return
    assert str(refused).strip()
    f"{refused.message}{refused.request_id}".encode()  # both go into the record
    assert refused.retry_after is None or refused.retry_after >= 0


def _journeys(response):
    assert isinstance(response, Response)
    assert response.choices
    again = msgspec.json.decode(msgspec.json.encode(response), type=Response)
    assert again == response
    for choice in response.choices:
        sample = Sample(id="1", output=choice.text, usage=response.usage, finish_reason=choice.finish_reason)
        sample.model_served, sample.system_fingerprint = response.model, response.system_fingerprint
        sample.reasoning, sample.tool_calls, sample.logprobs = choice.reasoning, choice.tool_calls, choice.logprobs
        sample.answers = response.choices
        assert msgspec.json.decode(msgspec.json.encode(sample), type=Sample) == sample
    assert without_thinking(without_thinking(response)) == without_thinking(response)


@examples(800)
@given(bodies, KINDS)
def test_any_body_is_an_answer_or_an_error(body, kind):
    check(lambda: read(body, REQUESTS[kind], Connection()))


@pytest.mark.parametrize("body", NASTY, ids=lambda body: body[:48].decode(errors="replace"))
def test_known_bad_bodies_are_answers_or_errors(body):
    check(lambda: read(body, REQUESTS["chat"], Connection()))
    raised = refused(429, said(body), {}, request=REQUESTS["chat"], connection=HERE)
    assert isinstance(raised, LMError)
    raised.message.encode()


MARKED = st.lists(
    st.sampled_from([part for marks in MARKS for part in (marks.opening, marks.closing, marks.after)]).flatmap(
        lambda pattern: st.from_regex(pattern, fullmatch=True)
    )
    | st.text(max_size=5),
    max_size=8,
).map("".join)


@examples(400)
@given(MARKED)
def test_any_text_is_parted_without_inventing_anything(text):
    answer, thinking = split(text)
    assert answer is None or answer in text
    assert all(thought in text for thought in (thinking or "").split("\n\n"))
    assert answer is None or split(answer) == (answer, None)  # a record's answer is parted again when it is replayed


HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "Retry-After", "retry-after-ms", "x-request-id", "x-ratelimit-reset-requests"])
    | st.text(max_size=5),
    st.text(max_size=20)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.builds(
        "{} {:02} {} {} {:02}:{:02}:{:02} {}".format,
        st.sampled_from(["Wed,", "Wed", "", "Mittwoch,"]),
        st.integers(-1, 40),
        st.sampled_from(["Oct", "Feb", "oct", "Okt", "13", ""]),
        st.integers(-1, 10**10),
        st.integers(-1, 99),
        st.integers(-1, 99),
        st.integers(-1, 99),
        st.sampled_from(["GMT", "-0000", "+2500", "+99999999", "PST", "", "Z"]),
    ),
    max_size=3,
)


@examples(600)
@given(HEADERS)
@example({"retry-after": "Wed, 01 Jan 0001 00:00:00 -0000"})
@example({"retry-after": "Wed, 31 Dec 9999 23:59:59 -2359"})
@example({"retry-after": "Wed, 01 Jan 99999999999 00:00:00 GMT"})
@example({"x-request-id": "\udcff"})
@example({"retry-after": "nan"})
@example({"retry-after-ms": "nan"})
@example({"retry-after-ms": "soon", "retry-after": "7"})
@example({"retry-after": ""})
@example({"retry-after": "-5"})
@example({"retry-after": "1e400"})
def test_any_retry_after_is_a_finite_wait_or_none(headers):
    wait = retry_after(headers)
    assert wait is None or (wait >= 0 and not math.isnan(wait))


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "nan", "retry-after": "7"}, 7.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_headers_are_read(headers, wait):
    assert retry_after(headers) == wait


@examples(300)
@given(st.integers(200, 599), bodies, HEADERS)
def test_any_refusal_is_an_error(status, body, headers):
    assert issubclass(classify(status, body.decode(errors="replace")), LMError)
    for raised in (
        refused(
            status,
            said(body),
            {name.lower(): value for name, value in headers.items()},
            request=REQUESTS["chat"],
            connection=HERE,
        ),
        failure(status, body.decode(errors="surrogateescape"), request=REQUESTS["text"], connection=HERE),
        malformed(REQUESTS["text"], body.decode(errors="surrogateescape")),
    ):
        check(lambda raised=raised: _raise(raised))


def _raise(error):
    raise error


# -- on the wire


class Echo(Loopback):
    """A server that sends exactly the given bytes, and closes the connection."""

    reply = b""

    async def route(self, request):
        return Script((self.reply,), "close")


VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12)
LINES = st.dictionaries(
    st.sampled_from(
        ["Retry-After", "X-Request-Id", "Content-Encoding", "Transfer-Encoding", "Location", "Set-Cookie", "Connection"]
    ),
    VALUES | st.sampled_from(["gzip", "deflate", "br", "chunked", "close", "/v1/elsewhere", "http://[::1"]),
    max_size=3,
)


@examples(150)
@given(st.integers(200, 599), bodies, LINES, st.sampled_from([0, 0, 0, 5, -3]), st.binary(max_size=20) | st.just(b""))
@example(200, json.dumps(answer("chat")).encode(), {}, 0, b"")
@example(302, b"", {"Location": "/v1/elsewhere"}, 0, b"")
@example(307, b"", {"Location": "/v1/chat/completions"}, 0, b"")
@example(204, b"", {}, 0, b"")
@example(304, b"", {}, 0, b"")
@example(200, b"x" * 9, {"Content-Encoding": "gzip"}, 0, b"")
def test_any_bytes_on_the_wire_are_an_answer_or_an_error(status, body, headers, off_by, junk):
    head = [f"HTTP/1.1 {status} Any", *(f"{name}: {value}" for name, value in headers.items())]
    head += [f"Content-Length: {max(0, len(body) + off_by)}"] if "Transfer-Encoding" not in headers else []
    with Echo() as server:
        server.reply = junk + "\r\n".join([*head, "", ""]).encode("latin-1") + body
        connection = Connection(api_base=f"{server.address}/v1", api_key="none", timeout_s=20)
        check(lambda: DirectTransport().complete(REQUESTS["chat"], connection))
