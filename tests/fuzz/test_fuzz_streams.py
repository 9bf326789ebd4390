"""Any stream of a server gives a Response or an LMError, however it is cut; and a valid answer is the same in events."""

from __future__ import annotations

import copy
import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.errors import LMError
from runner.transport.answer import read
from runner.transport.streamed import StreamedAnswer
from tests.fuzz.depth import examples
from tests.fuzz.test_fuzz_answers import ANY, HERE, REQUESTS, SURROGATES, check, nearly, places, torn
from tests.support.seen_streams import CALL, HEAD, STREAMS, USAGE, stream
from tests.support.streams import DONE, events_of

CUTS = st.lists(st.integers(1, 400), max_size=8)


def streamed(sent, cuts, kind="chat"):
    """Read a stream in pieces of these sizes, and the rest in one."""
    answered, at = StreamedAnswer(0.0), 0
    for size in [*cuts, len(sent) + 1]:
        if not answered.ended:
            answered.feed([sent[at : at + size]])
        at += size
    return answered.response(REQUESTS[kind], HERE)


@st.composite
def chunks(draw):
    """Draw the events of a stream with some values replaced or missing."""
    deltas = [
        {"role": "assistant", "content": ""},
        {"content": "4"},
        {"reasoning": "2 + 2"},
        {"tool_calls": [{"index": 0, **CALL}]},
    ]
    made = [{**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None} for delta in deltas]
    made += [{**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {**HEAD, "choices": [], "usage": USAGE}]
    made = copy.deepcopy(made)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.sampled_from([place for place in places(made) if len(place) > 1]))
        holder = made
        for key in at[:-1]:
            holder = holder[key]
        if draw(st.booleans()) or isinstance(holder, list):
            holder[at[-1]] = draw(ANY)
        else:
            del holder[at[-1]]
    return stream(*made)


bodies = st.one_of(
    st.binary(max_size=60),
    st.lists(ANY, max_size=4).map(lambda values: stream(*values)),
    chunks(),
    chunks(),
    st.builds(torn, st.sampled_from([case.sent or b" " for case in STREAMS]), st.integers(0, 2**32)),
)


@examples(400)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of the examples below
@given(bodies, CUTS)
@example(b"data: " + b"[" * 100_000 + b"\n\n", [])
@example(b'data: {"choices": ' + b"[" * 20_000 + b"]" * 20_000 + b"}\n\n", [])
@example(b'data: {"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}\n\n", [])
@example(b"event: error\ndata: " + b"[" * 100_000 + b"\n\n", [])
@example(b'data: {"choices": [{"index": 1e999, "delta": {"content": [1, null, {"type": []}]}, "finish_reason": "stop"}]}\n\n', [])
def test_any_stream_is_an_answer_or_an_error(body, cuts):
    check(lambda: streamed(body, cuts))


@examples(200)
@given(nearly(), CUTS)
def test_an_answer_in_events_is_an_answer_or_an_error(body, cuts):
    made = json.loads(body)
    choices = made.get("choices")
    if not isinstance(choices, list) or not all(
        isinstance(one, dict) and isinstance(one.get("message"), dict) for one in choices
    ):
        return
    try:
        events = [*events_of(made), DONE]
    except (TypeError, KeyError, AttributeError):  # not an answer that can be cut
        return
    check(lambda: streamed(b"".join(events), cuts))


@examples(200)
@given(SURROGATES, SURROGATES, st.sampled_from(["stop", "length"]), CUTS)
def test_a_valid_answer_is_the_same_in_events(text, thinking, reason, cuts):
    message = {"role": "assistant", "content": text, "reasoning_content": thinking}
    body = {**HEAD, "choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": USAGE}
    try:
        plain = read(json.dumps(body).encode(), REQUESTS["chat"], HERE)
    except LMError:
        return
    made = streamed(b"".join([*events_of(body), DONE]), cuts)
    made = msgspec.structs.replace(made, first_token_s=None)
    if not text and thinking:  # a server that has only thought sends no text: null and an empty text are the same in events
        assert made.choices[0].text is None
        made = msgspec.structs.replace(made, choices=[msgspec.structs.replace(made.choices[0], text="")])
    assert made == plain


TEXTS = ["a", "", 'say "b"', "\\", "\n\n", "data: ", "é", "\U0001f600", '"content": "x"', "[DONE]", "an error"]
DELTAS = [{"content": text} for text in TEXTS]
ODD = [
    {},
    {"reasoning": "2 + 2"},
    {"content": "4", "reasoning": "2 + 2"},
    {"tool_calls": [{"index": 0, **CALL}]},
    {"content": None},
    {"role": "assistant", "content": "b"},
]


@examples(200)
@given(
    st.lists(st.one_of(st.sampled_from(DELTAS), st.sampled_from(DELTAS), st.sampled_from(ODD)), min_size=8, max_size=40),
    st.lists(st.sampled_from(["choice", "usage", "comment", "model"]), max_size=2),
    st.sampled_from([(", ", ": "), (",", ":")]),
    CUTS,
)
@example([*DELTAS, *DELTAS], [], (",", ":"), [])
@example([{"content": "4", "reasoning": "2 + 2"}] * 12, [], (", ", ": "), [])
def test_events_that_are_joined_are_the_same_answer(deltas, odd, separators, cuts):
    made = [{**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    for number, kind in enumerate(odd, 3):
        made[number] |= {"choice": {"choices": [{**made[number]["choices"][0], "index": 1}]}, "usage": {"usage": USAGE}}.get(
            kind, {}
        )
        made[number] |= {"model": {"model": "other"}}.get(kind, {})
    made.append({**HEAD, "choices": [{"index": at, "delta": {}, "finish_reason": "stop"} for at in (0, 1)]})
    sent = [b"data: %b\n\n" % json.dumps(one, separators=separators).encode() for one in made]
    if "comment" in odd:
        sent.insert(5, b": ping\n\n")
    body = b"".join([*sent, DONE])
    answered = StreamedAnswer(0.0)
    for one in sent:  # what the reader does with events that differ
        answered.add([one])
    assert outcome(answered.response, REQUESTS["chat"], HERE) == outcome(streamed, body, cuts)


def outcome(read, *arguments):
    """Return the answer without its time, or the class of the error."""
    try:
        return msgspec.structs.replace(read(*arguments), first_token_s=None)
    except LMError as error:
        return type(error)
