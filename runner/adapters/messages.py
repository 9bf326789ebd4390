"""Check a conversation that a row brings along, in OpenAI's form, and leave out what says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import DataError
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from runner.types import Message

_ROLES = ("system", "developer", "user", "assistant", "tool")
_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "reasoning_content")
_PARTS = {"text": "text", "image_url": "image_url", "input_audio": "input_audio", "file": "file"}
"""The parts of a message in OpenAI's form, and the key that holds each one's content."""


def conversation(value: Any) -> list[Message]:
    """Return the messages of a conversation: a list, or its JSON.

    Keys that are null are left out: whoever writes tables fills them in.

    Raises:
        DataError: it is not a conversation that a model can answer.
    """
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DataError(f"it is text, and not the JSON of a list of messages: {error}") from None
    if not isinstance(value, list) or not value:
        raise DataError(f"it is {_shown(value)}, and not a list of messages [{{role, content}}, ...]")
    messages: list[Message] = []
    open_calls: set[str] = set()
    for number, message in enumerate(value, 1):
        try:
            checked = _message(message)
            _check_calls(checked, open_calls)
        except DataError as error:
            raise DataError(f"message {number}: {error}") from None
        messages.append(checked)
    if messages[-1]["role"] not in ("user", "tool"):
        raise DataError(f"the last message has the role {messages[-1]['role']}: there is nothing for the model to answer")
    return messages


def _message(message: Any) -> Message:
    if not isinstance(message, dict):
        raise DataError(f"it is {_shown(message)}, and not an object with role and content")
    if message.keys() >= {"from", "value"}:
        raise DataError("it has from and value (ShareGPT); give role (user, assistant) and content")
    kept = {key: value for key, value in message.items() if value is not None}
    if strange := [key for key in kept if key not in _KEYS]:
        raise DataError(f"unknown key {strange[0]!r}{suggest(strange[0], _KEYS) or '; allowed: ' + ', '.join(_KEYS)}")
    role = kept.get("role")
    if role not in _ROLES:
        raise DataError(f"unknown role {role!r}{suggest(str(role), _ROLES)}; allowed: {', '.join(_ROLES)}")
    content = kept.get("content")
    if isinstance(content, list):
        kept["content"] = [_part(part, place) for place, part in enumerate(content, 1)]
    elif content is None and role == "assistant" and kept.get("tool_calls"):
        kept["content"] = None
    elif not isinstance(content, str):
        raise DataError(f"its content is {_shown(content)}, and neither text nor a list of parts")
    return kept


def _part(part: Any, place: int) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise DataError(f"part {place}: it is {_shown(part)}, and not an object with a type")
    kind, kept = part.get("type"), {key: value for key, value in part.items() if value is not None}
    if kind not in _PARTS:
        hint = suggest(str(kind), _PARTS) or f"; allowed: {', '.join(_PARTS)}"
        raise DataError(f"part {place}: unknown type {kind!r}{hint}")
    if _PARTS[kind] not in kept:
        raise DataError(f"part {place}: it is of type {kind} and has no {_PARTS[kind]}")
    return kept


def _check_calls(message: Message, open_calls: set[str]) -> None:
    """Check the tool calls of a message, and that a tool's message answers one. `open_calls`: the ids so far."""
    if message["role"] == "tool":
        if (call := message.get("tool_call_id")) not in open_calls:
            raise DataError(f"it answers the tool call {call!r}, which no message before it makes")
        return
    calls = message.get("tool_calls", [])
    if not isinstance(calls, list) or (calls and message["role"] != "assistant"):
        raise DataError("tool_calls is a list of calls of the assistant")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not call.get("id"):
            raise DataError(f"{_shown(call)} is not a tool call: give id, type and function {{name, arguments}}")
        if not isinstance(function.get("arguments"), str):
            raise DataError(f"the arguments of the tool call {call['id']!r} are not text: OpenAI's form has JSON in a string")
        open_calls.add(call["id"])


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004
