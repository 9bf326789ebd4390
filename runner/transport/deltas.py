"""Put the pieces of one streamed choice together, to the choice that the same answer has when it is not streamed."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import msgspec

from runner.transport.choices import AnswerChoice, AnswerMessage, Function, ToolCall


class CallDelta(msgspec.Struct, gc=False):
    """A piece of a tool call. Only its first piece has a name; some servers leave out `index` or `id`, or repeat them."""

    index: int | None = None
    id: str | int | None = None
    type: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct, gc=False):
    """A piece of the message of a chat answer. The role, which some servers repeat, is not read."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[CallDelta] | None = None
    function_call: Function | None = None
    reasoning_content: str | list[Any] | None = None
    reasoning: str | list[Any] | None = None
    reasoning_details: list[Any] | None = None
    provider_specific_fields: dict[str, Any] | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is in it, or an empty text."""
        said = self.content or self.refusal or self.reasoning_content or self.reasoning or self.reasoning_details
        return not (said or self.tool_calls or self.function_call or self.provider_specific_fields)


class ChoiceDelta(msgspec.Struct, gc=False):
    """A piece of one choice: `delta` (chat; `message` in what some gateways send instead) or `text` (text completions)."""

    index: int | None = 0
    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Any = None
    error: Any = None
    provider_specific_fields: dict[str, Any] | None = None


_THE_SAME = frozenset({"type", "index", "id", "format", "native_finish_reason"})
"""Fields that each piece of a block repeats whole."""


class StreamedChoice:
    """One choice, as far as it has come.

    Attributes:
        error: the choice says that it has failed.
        finish_reason: why it has ended; None: it has not.
    """

    __slots__ = ("_calls", "_content", "_hidden", "_logprobs", "_more", "_old_call", "_text", "error", "finish_reason")

    def __init__(self) -> None:
        self._calls: list[tuple[int | None, ToolCall]] = []
        self._content: list[Any] = []
        self._hidden: tuple[list[Any], list[Any]] = [], []
        self._logprobs: list[Any] = []
        self._more: dict[str, list[Any]] = {}
        self._old_call: ToolCall | None = None
        self._text: list[str] = []
        self.error: Any = None
        self.finish_reason: str | None = None

    @property
    def said(self) -> bool:
        """Tell whether a token has come: of the answer, of thinking, or of a tool call."""
        return bool(any(self._content) or any(self._text) or self._calls or self._old_call or self._more)

    def add(self, piece: ChoiceDelta) -> None:
        """Add a piece."""
        delta = piece.delta if piece.delta is not None else piece.message
        if delta is not None:
            if delta.content is not None:
                self._content.append(delta.content)
            if delta.reasoning_content or delta.reasoning or delta.reasoning_details or delta.refusal:
                self._add_more(delta)
            if delta.tool_calls or delta.function_call or delta.provider_specific_fields:
                self._add_calls(delta)
        if piece.text is not None:
            self._text.append(piece.text)
        if piece.finish_reason:
            self.finish_reason = piece.finish_reason
        if piece.logprobs is not None:
            self._logprobs.append(piece.logprobs)
        if piece.error or piece.provider_specific_fields:
            self.error = piece.error or self.error
            self._hidden[0].append(piece.provider_specific_fields or {})

    def whole(self) -> AnswerChoice:
        """Return all pieces as one choice."""
        logprobs = _joined(self._logprobs) if self._logprobs else None
        made = AnswerChoice(None, None, self.finish_reason, logprobs, self.error, _shown(self._hidden[0]))
        if self._text and not self._content:
            made.text = "".join(self._text)
            return made
        more = {name: _whole(pieces) for name, pieces in self._more.items()}
        content, calls = _whole(self._content), [call for _, call in self._calls]
        if content == "" and (calls or self._old_call or more):
            content = None  # the first piece of many servers is an empty text, whatever follows
        old_call = self._old_call.function if self._old_call else None
        made.message = AnswerMessage(
            content, tool_calls=calls or None, function_call=old_call, provider_specific_fields=_shown(self._hidden[1]), **more
        )
        return made

    def _add_more(self, delta: Delta) -> None:
        for name in ("refusal", "reasoning_content", "reasoning", "reasoning_details"):
            if piece := getattr(delta, name):
                self._more.setdefault(name, []).append(piece)

    def _add_calls(self, delta: Delta) -> None:
        for call in delta.tool_calls or ():
            self._add_call(call)
        if delta.function_call is not None:
            self._old_call = self._old_call or ToolCall(function=Function())
            _extend(self._old_call, None, None, delta.function_call)
        if delta.provider_specific_fields:
            self._hidden[1].append(delta.provider_specific_fields)

    def _add_call(self, piece: CallDelta) -> None:
        """Add a piece to the call that it belongs to: the last one with its index, or the last one, unless it begins another."""
        known = [call for index, call in self._calls if piece.index is None or index == piece.index]
        if not known or _begins_another(known[-1], piece):
            known = [ToolCall(function=Function())]
            self._calls.append((piece.index, known[-1]))
        _extend(known[-1], piece.id, piece.type, piece.function)


def _begins_another(call: ToolCall, piece: CallDelta) -> bool:
    """Return whether a piece belongs to a further call: it has another id, or a name although the call is complete."""
    if piece.id and call.id:
        return piece.id != call.id
    named = piece.function is not None and piece.function.name
    return bool(named and piece.index is None and call.function and _is_complete(call.function.arguments))


def _is_complete(arguments: Any) -> bool:
    if not isinstance(arguments, str):
        return arguments is not None
    try:
        json.loads(arguments)
    except ValueError:
        return False
    return True


def _extend(call: ToolCall, number: str | int | None, kind: str | None, function: Function | None) -> None:
    call.id, call.type = call.id or number or None, call.type or kind
    if function is None or call.function is None:
        return
    call.function.name = call.function.name or function.name
    given, so_far = function.arguments, call.function.arguments
    if given is not None:
        call.function.arguments = so_far + given if isinstance(so_far, str) and isinstance(given, str) else given


def _whole(pieces: Any) -> Any:
    """Return the pieces of a content or of thinking as one: a text if all are texts, else blocks; None for no pieces."""
    if not isinstance(pieces, list) or not pieces:
        return pieces or None
    if all(type(piece) is str for piece in pieces):
        return "".join(pieces)
    parts = [part for piece in pieces for part in (piece if isinstance(piece, list) else [piece])]
    whole: list[Any] = []
    for kind, group in groupby(parts, _kind):
        of_kind = list(group)
        whole += of_kind if kind is None else [_joined(of_kind)]
    return whole


def _shown(hidden: list[Any]) -> dict[str, Any] | None:
    """Return the fields that litellm's proxy hides, whole; None without any."""
    return {name: _whole(value) for name, value in _joined(hidden).items()} if hidden else None


def _kind(block: Any) -> tuple[Any, ...] | None:
    """Return what the pieces of one block have in common; None for what is not a block, such as a text."""
    return (block.get("type"), block.get("index")) if isinstance(block, dict) else None


def _joined(pieces: list[Any]) -> dict[str, Any]:
    """Return objects as one: texts and lists of the same field follow each other, of other values the last one counts."""
    values: dict[str, list[Any]] = {}
    for piece in pieces:
        for name, value in piece.items() if isinstance(piece, dict) else ():
            if value is not None or name not in values:
                values.setdefault(name, []).append(value)
    return {name: _one(name, [value for value in found if value is not None]) for name, found in values.items()}


def _one(name: str, values: list[Any]) -> Any:
    if not values:
        return None
    if name not in _THE_SAME and all(isinstance(value, str) for value in values):
        return "".join(values)
    return [item for value in values for item in value] if all(isinstance(value, list) for value in values) else values[-1]
