"""Cut an event stream (server-sent events) into events, as the HTML standard says, and as servers of models send them."""

from __future__ import annotations

import json
import re

_BOM = b"\xef\xbb\xbf"
END = b"\n\n"
"""The end of an event, whatever it was in the stream."""


class EventStream:
    """Collect the bytes of an event stream, however they are cut, and return its events.

    Lines end with LF, CRLF or CR; a byte order mark, comments and unknown fields are skipped; several lines of data are one text;
    events with empty data are left out (WHATWG HTML, 9.2.6, html.spec.whatwg.org/multipage/server-sent-events.html).
    An event that is called ``error``, and a field of this name (llama.cpp until 2025), are data with an ``error``.
    """

    __slots__ = ("_begun", "_cr", "_rest")

    def __init__(self) -> None:
        self._begun = False
        self._cr = False
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        """Return the events that `piece` completes, for `data_of`; empty if it completes none."""
        text = self._rest + self._lines(piece)
        if not self._begun:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._rest = text
                return b""
            self._begun, text = True, text.removeprefix(_BOM)
        events, _, self._rest = text.rpartition(END)
        return events

    def close(self) -> bytes:
        """Return the last event, if no empty line has ended it. It may be incomplete."""
        event, self._rest = self._rest, b""
        return event

    def _lines(self, piece: bytes) -> bytes:
        """Return `piece` with every end of a line as LF."""
        if self._cr and piece:
            self._cr, piece = False, piece.removeprefix(b"\n")
        if b"\r" not in piece:
            return piece
        self._cr = piece.endswith(b"\r")  # the other half of CRLF may follow
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


_TEXT_FIELD = re.compile(rb'"(?:content|reasoning_content|reasoning|text)": ?"')
_TEXT = re.compile(rb'[^"\\\n]*(?:\\.[^"\\\n]*)*')
_FEWEST = 8
"""Events below which joining them saves nothing."""


def joined(events: bytes) -> tuple[bytes, bytes]:
    """Return events with runs of alike ones as one event, and one of those that were left out, with an empty text.

    Most events of a stream differ only in a piece of text. Where the bytes between two texts (the end of an event, and the next
    one up to its text) are those that come after the second event's text, they are removed, and the texts are put together in one
    event: so the JSON of one event is decoded in place of a hundred. These bytes hold the end of an event, and so are never part
    of a text. Anything else comes back as it is, with an empty second value.
    """
    second = events.find(END) + len(END)
    field = _TEXT_FIELD.search(events, second) if second >= len(END) else None
    text = _TEXT.match(events, field.end()) if field is not None else None
    if field is None or text is None:
        return events, b""
    between = events[text.end() : events.find(field[0], text.end()) + len(field[0])]
    end, _, beginning = between.partition(END)
    if not beginning or END in beginning or events.count(between) < _FEWEST:
        return events, b""
    return events.replace(between, b""), beginning.removeprefix(b"data: ") + end


def data_of(events: bytes) -> list[bytes]:
    """Return the data of events, as `EventStream` returns them."""
    return [data for event in events.split(END) if (data := _data_of(event))]


def _data_of(event: bytes) -> bytes:
    """Return the data of one event; empty if it has none."""
    lines: list[bytes] = []
    is_error = False
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field in (b"data", b"error"):
            lines.append(value)
        is_error = is_error or field == b"error" or (field == b"event" and value == b"error")
    data = b"\n".join(lines)
    return _as_error(data) if is_error and data else data


def _as_error(data: bytes) -> bytes:
    """Return the data of an error as JSON with an ``error``."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = data.decode(errors="replace")
    return data if isinstance(told, dict) and "error" in told else json.dumps({"error": told}).encode()
