"""The event stream, as the WHATWG's HTML standard interprets it, and what is done beyond it."""

from __future__ import annotations

import json

import pytest

from runner.transport.events import END, EventStream, data_of, joined

CASES = {
    "events": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "the standard's first example": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [b"YHOO\n+2\n10"]),
    "the standard's second example": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [b"first event", b"second event", b" third event"],
    ),
    "the standard's third example": (b"data\n\ndata\ndata\n\ndata:\n\n", [b"\n"]),
    "the standard's fourth example": (b"data:test\n\ndata: test\n\n", [b"test", b"test"]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "CR": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "all ends of lines": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", [b"a", b"b", b"c"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "a second byte order mark": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [b"b"]),
    "unknown fields": (b"foo: x\ndata: a\nDATA: b\n\n", [b"a"]),
    "comments": (b": x\n\n:\n\ndata: a\n: data: b\n\n", [b"a"]),
    "no data": (b"id: 1\nevent: x\n\n", []),
    "other separators of lines": ("data: a\u2028b\x0bc\u0085d\n\n".encode(), ["a\u2028b\x0bc\u0085d".encode()]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("name", CASES)
def test_events_are_read_however_they_are_cut(name, size):
    sent, expected = CASES[name]
    stream = EventStream()
    found = [data for at in range(0, len(sent), size) for data in data_of(stream.feed(sent[at : at + size]))]
    assert [*found, *data_of(stream.close())] == expected


def test_an_event_comes_with_its_last_byte():
    stream = EventStream()
    assert (stream.feed(b"data: a\r\n\r"), stream.feed(b"\n")) == (b"data: a\n\n", b"")
    assert stream.feed(b"data: b\n") == b""
    assert data_of(stream.close()) == [b"b"]
    assert stream.close() == b""


ERRORS = {
    "named": (b'event: error\ndata: {"message": "x"}\n\n', {"error": {"message": "x"}}),
    "named, with an error": (b'event: error\ndata: {"error": "x"}\n\n', {"error": "x"}),
    "named, with text": (b"event: error\ndata: it broke\n\n", {"error": "it broke"}),
    "a field": (b'error: {"code": 500}\n\n', {"error": {"code": 500}}),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_data_with_an_error(name):
    sent, expected = ERRORS[name]
    [data] = data_of(EventStream().feed(sent))
    assert json.loads(data) == expected


def test_runs_of_alike_events_are_one():
    def one(text, **more):
        return b"data: " + json.dumps({**more, "choices": [{"delta": {"content": text}}]}).encode()

    texts = [f'{n}"\\n' for n in range(12)]
    events = [one + END for one in (one("", id="first"), *map(one, texts), one("?", usage={}))]
    expected = [one("", id="first")[6:], one("".join(texts))[6:], one("?", usage={})[6:]]
    for pieces in (events, [b"".join(events)], [b"".join(events[:5]), b"".join(events[5:])], cut(b"".join(events), 17)):
        shorter, left_out = joined(pieces)
        assert data_of(shorter) == expected
        assert left_out == one("")[6:]


ODD = {
    "few": [b'data: {"text": "%d"}' % n for n in range(5)],
    "no texts": [b'data: {"id": "%d"}' % n for n in range(20)],
    "one that differs within": [b'data: {"text": "%d"}' % n for n in range(9)] + [b'data: {"id": "x"}', b'data: {"text": "y"}'],
    "two texts in each": [b'data: {"text": "%d", "content": "%d"}' % (n, n) for n in range(20)],
    "a text that does not end": [b'data: {"text": "%d' % n for n in range(20)],
    "a text that ends in an escape": [b'data: {"text": "%d\\"}' % n for n in range(20)],
}


@pytest.mark.parametrize("name", ODD)
def test_other_events_are_left_as_they_are(name):
    events = [event + END for event in ODD[name]]
    whole = b"".join(events)
    for pieces in (events, [whole], cut(whole, 17), cut(whole, len(events[0]) + 1)):
        assert joined(pieces) == (whole, b"")


def cut(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]
