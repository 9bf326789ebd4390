"""Cut an event stream (server-sent events) into events, as the HTML standard says, and as servers of models send them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        """Return the events that `piece` completes, each with its `END`; empty if it completes none."""
        text = self._rest + self._lines(piece)
        if not self._begun:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._rest = text
                return b""
            self._begun, text = True, text.removeprefix(_BOM)
        end = text.rfind(END) + len(END)
        if end < len(END):
            self._rest = text
            return b""
        self._rest = text[end:]
        return text[:end]

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


def joined(pieces: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return events with a run of alike ones as one event, and one of those that were left out, with an empty text.

    Most events of a stream differ only in a piece of text: what comes before and after it are the same bytes. Such events are
    cut, joined and compared by C code, and the JSON of one event is decoded in place of a hundred. A run begins with the second
    event, since the first one of many servers differs, and ends with the last one that begins and ends as that one does. Anything
    else comes back as it is, with an empty second value.

    Args:
        pieces: whole events, as they came; with one event in each, as most servers send them, they need not be cut apart.
    """
    events = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    found = _joined(events, pieces, len(END)) if len(pieces) >= _FEWEST else None
    return found or _joined(events, events.split(END), 0) or (events, b"")


def _joined(events: bytes, lines: Sequence[bytes], cut: int) -> tuple[bytes, bytes] | None:
    """Do as `joined`; None without a run. The last `cut` bytes of each line are the end of an event."""
    field = _TEXT_FIELD.search(lines[1]) if len(lines) >= _FEWEST else None
    text = _TEXT.match(lines[1], field.end()) if field is not None else None
    if text is None:
        return None
    before, after = lines[1][: text.start()], lines[1][text.end() :].removesuffix(END)
    last = len(lines)
    while last > 1 and not (
        lines[last - 1].startswith(before) and lines[last - 1].endswith(after, 0, len(lines[last - 1]) - cut)
    ):
        last -= 1
    begin, end = len(before), -len(after) - cut
    texts = [line[begin:end] for line in lines[1:last]]
    run, at = (after + END + before).join(texts), len(lines[0]) + len(END) - cut + begin
    one = b"".join(texts)
    if len(texts) < _FEWEST or not after or not events.startswith(run, at) or _TEXT.fullmatch(one) is None:
        return None
    return b"".join((events[:at], one, events[at + len(run) :])), before.removeprefix(b"data: ") + after


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
