"""Read a streamed answer of OpenAI's wire format, of chat and text completions, to the Response that it has when not streamed."""

from __future__ import annotations

import json
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from runner.errors import LMError, ServerError
from runner.transport.answer import Answer, read, response_of
from runner.transport.base import malformed, not_an_answer, refused_with_200
from runner.transport.choices import mend, says_something
from runner.transport.deltas import ChoiceDelta, StreamedChoice
from runner.transport.events import END, EventStream, data_of, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.types import Connection, Request, Response

_DONE = b"[DONE]"
_PLAIN = b"data: "
_LAST = _PLAIN + _DONE + END
_SPACE = b" \t\r\n"
_SHOWN = 200
_MOST_HELD = 1 << 16
"""Bytes of events that are kept unread: after the first token, they are read together, which costs less than one by one."""
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Piece(NamedTuple):
    """A piece of a streamed answer: the number of the choice, and what it adds to its text or its thinking."""

    number: int
    text: str | None
    reasoning: str | None


Begin: TypeAlias = "Callable[[], Callable[[Piece], None] | None]"

LISTENER: ContextVar[Begin | None] = ContextVar("LISTENER", default=None)
"""The listener to the answers of this context: called for each attempt, it returns what takes the pieces, or None."""


class _Chunk(msgspec.Struct, gc=False):
    """One event: pieces of choices, and what is known of the whole. Azure's first and the last with usage have no choices."""

    choices: list[ChoiceDelta] | None = None
    id: str | int | None = None
    model: str | None = None
    created: int | float | str | None = None
    system_fingerprint: str | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk, strict=False).decode
_decode_all = msgspec.json.Decoder(list[_Chunk], strict=False).decode


class StreamedAnswer:
    """Put a streamed answer together. Events are read when they may matter: until the first token, and at the end.

    An answer is whole when each of its choices has a finish reason. ``[DONE]`` is not needed, and does not make up for one:
    some servers never send it, and some gateways always do. Comments and events without choices (``ping``) are passed over.

    Args:
        began: when the request was sent, by `time.perf_counter`.

    Attributes:
        ended: whether nothing more is to be read: ``[DONE]`` or an error has come.
        first_token_s: seconds until the first token, of thinking or a tool call, too; None: none has come.
    """

    def __init__(self, began: float) -> None:
        self.ended = False
        self.first_token_s: float | None = None
        self._began = began
        self._beginning = b""
        self._choices: dict[int, StreamedChoice] = {}
        self._error: Any = None
        self._events = EventStream()
        self._head = Answer([])
        self._held: list[bytes] = []
        self._held_size = 0
        self._plain: list[bytes] | None = None
        self._unreadable = b""
        self._usages: list[dict[str, Any]] = []
        begin = LISTENER.get()
        self._tell = begin() if begin is not None else None

    @property
    def is_whole(self) -> bool:
        """Return whether every choice has ended."""
        self._read_on()
        for choice in self._choices.values():
            if not (choice.finish_reason or choice.error):
                return False
        return bool(self._choices)

    def feed(self, pieces: Sequence[bytes]) -> None:
        """Read on. A body that is JSON, from a server that does not stream, is kept as it is."""
        if self._plain is not None:
            self._plain += pieces
            return
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not self._beginning:
            self._beginning = piece.lstrip(_SPACE)[:_SHOWN]
            if self._beginning.startswith((b"{", b"[")):
                self._plain = [piece]
                return
        if events := self._events.feed(piece):
            self._held += pieces if events == piece else (events,)
            self._held_size += len(events)
            if self.first_token_s is None or self._tell or self._held_size > _MOST_HELD or _may_end(events):
                self._read_on()

    def _read_on(self) -> None:
        """Read the events that have come since the last time."""
        if held := self._held:
            self._held, self._held_size = [], 0
            self.add(held)

    def add(self, pieces: Sequence[bytes]) -> None:
        """Add whole events. Most are one line of data each, and are decoded at once; a run of alike ones is one event by then."""
        events, left_out = joined(pieces) if self._tell is None else (b"".join(pieces), b"")
        alike = self._one(left_out) if left_out else None
        if left_out and (alike is None or not _adds_nothing(alike)):
            events = b"".join(pieces)
        plain = events.removesuffix(_LAST)
        try:
            lines = plain[len(_PLAIN) : -len(END)].replace(END + _PLAIN, b",")
            chunks = _decode_all(b"[%b]" % lines) if plain.startswith(_PLAIN) and plain.endswith(END) else []
        except _UNREADABLE:
            chunks = []
        if chunks and plain.count(b"\n") == 2 * len(chunks):
            self.ended = self.ended or len(plain) < len(events)
            for number, chunk in enumerate(chunks):
                if not self._take(chunk):
                    self._take_error(chunk.error, plain.split(END)[number][len(_PLAIN) :])
        else:
            self._add_one_by_one(data_of(events))
        if alike is not None:
            self._take_head(alike)
        if self.first_token_s is None:
            for choice in self._choices.values():
                if choice.said:
                    self.first_token_s = time.perf_counter() - self._began
                    break

    def response(self, request: Request, connection: Connection, headers: Mapping[str, str] | None = None) -> Response:
        """Return the answer. `headers` may name its cost.

        Raises:
            LMError: the stream has broken off, holds an error, or is not a stream of an answer.
        """
        if self._plain is not None:
            return read(b"".join(self._plain), request, connection, headers)
        try:
            return self._whole(request, connection, headers)
        except LMError as error:
            error.begun = self.first_token_s is not None
            raise

    def _whole(self, request: Request, connection: Connection, headers: Mapping[str, str] | None) -> Response:
        self._read_on()
        if not self.ended and (rest := self._events.close()):
            unreadable = self._unreadable
            self.add([rest + END])
            self._unreadable = unreadable  # the last event may be torn
        if self._error is not None:
            if self._choices:
                raise refused_with_200(self._error, ServerError, request, connection)
            raise not_an_answer(msgspec.json.encode(self._error), str(self._error), request, connection)
        if self._unreadable or not self.is_whole:
            raise malformed(request, self._missing())
        answer = self._head
        answer.choices = [choice.whole() for _, choice in sorted(self._choices.items())]
        if usages := self._usages:
            answer.usage = msgspec.Raw(msgspec.json.encode(usages[0] if len(usages) == 1 else _largest(*usages)))
        return response_of(answer, request, connection, headers, self.first_token_s)

    def _add_one_by_one(self, events: list[bytes]) -> None:
        for data in events:
            if data.strip() == _DONE:
                self.ended = True
                return
            chunk = self._one(data)
            if chunk is not None and not self._take(chunk):
                self._take_error(chunk.error, data)

    def _take(self, chunk: _Chunk) -> bool:
        """Take one event. Return whether it holds what events hold, and no error."""
        pieces = chunk.choices
        for piece in pieces or ():
            index = piece.index or 0
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = StreamedChoice()
            choice.add(piece)
            if self._tell is not None:
                _tell(self._tell, index, piece)
            if choice.error:
                self.ended = True
        if chunk.usage:
            self._usages[1:] = [chunk.usage]  # the first and the last
        if not self._head.model or self._head.system_fingerprint is None:
            self._take_head(chunk)
        return bool(pieces or chunk.usage) and not chunk.error

    def _take_head(self, chunk: _Chunk) -> None:
        head = self._head
        if not head.model:
            head.id, head.model, head.created = head.id or chunk.id, chunk.model, head.created or chunk.created
        if head.system_fingerprint is None:
            head.system_fingerprint = chunk.system_fingerprint

    def _take_error(self, error: Any, data: bytes) -> None:
        """Look for an error in an event: in ``error``, or the event as a whole (vLLM until 0.10, MiniMax)."""
        body: dict[str, Any] = {"error": error if isinstance(error, dict) else {"message": error}}
        if not error:
            told = json.loads(data)
            whole = told.get("object") == "error" or told.get("type") == "error"
            body = {"error": told} if whole else {"base_resp": told.get("base_resp")}
        if body.get("base_resp") or says_something(body.get("error")):
            self.ended, self._error = True, body

    def _one(self, data: bytes) -> _Chunk | None:
        """Return an event whose data has unusual types, as far as it can be read; None for what is not an object of JSON."""
        for read_as in (bytes, _with_messages):
            try:
                return _decode(read_as(data))
            except _UNREADABLE:
                continue
        if data.startswith(b"{"):
            self._unreadable = data
        return None

    def _missing(self) -> str:
        """Say why this is not a whole answer."""
        if self.is_whole:
            return f"an event cannot be read: {self._unreadable[:_SHOWN].decode(errors='replace')}"
        if not self._choices:
            return f"the stream holds no answer: {self._beginning.decode(errors='replace')}"
        why = "the stream ended before the answer, without a finish reason"
        return f"{why}; for a server that never sends one, set limits.stream=never"


def _tell(tell: Callable[[Piece], None], index: int, piece: ChoiceDelta) -> None:
    """Pass on what a piece adds, if that is text or thinking."""
    delta = piece.delta if piece.delta is not None else piece.message
    parts: tuple[Any, Any] = (piece.text, None)
    if delta is not None:
        parts = (delta.content, delta.reasoning_content or delta.reasoning)
    text, reasoning = (part if isinstance(part, str) and part else None for part in parts)
    if text or reasoning:
        tell(Piece(index, text, reasoning))


def _may_end(events: bytes) -> bool:
    """Return whether one of these events may be the last one: ``[DONE]``, or an error by any of its names."""
    return b"[DONE]" in events or b"error" in events or b"base_resp" in events


def _adds_nothing(chunk: _Chunk) -> bool:
    """Return whether an event with an empty text holds nothing else that counts."""
    if chunk.usage or chunk.error or chunk.choices is None or len(chunk.choices) != 1:
        return False
    choice = chunk.choices[0]
    if (
        choice.text
        or choice.finish_reason
        or choice.logprobs
        or choice.error
        or choice.provider_specific_fields
        or choice.message
    ):
        return False
    return choice.delta is None or choice.delta.is_empty


def _with_messages(data: bytes) -> bytes:
    """Return an event with ``message`` for ``delta``, and with the usual types (`mend`); as it is if it is not JSON."""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(event, dict):
        return data
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and isinstance(choice.get("delta"), dict):
            choice["message"] = choice.pop("delta")
    if not isinstance(event.get("usage"), dict):
        event.pop("usage", None)
    return mend(json.dumps(event).encode()) or data


def _largest(one: Any, other: Any) -> Any:
    """Return the largest of each count: counts that grow from event to event, or that two events share (Anthropic's)."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{name: _largest(one.get(name), value) for name, value in other.items()}}
    return max(one, other) if isinstance(one, int | float) and isinstance(other, int | float) else other
