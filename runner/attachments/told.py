"""Write messages for people: texts, attachments by a short name, calls of tools as calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.attachments.parts import kind_of_part, names_in

if TYPE_CHECKING:
    from runner.types import Message


def said(message: Message) -> str:
    """Return what a message says, as one text."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [] if content is None else [content]
    lines = [_part(part) for part in parts]
    lines += [_call(call) for call in message.get("tool_calls") or ()]
    return "\n".join(line for line in lines if line)


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    if (kind := kind_of_part(part)) is None:
        return str(part.get("text", part))
    name = next((name for _, name in names_in([{"role": "", "content": [part]}])), "")
    digest, _, ending = name.partition(".")
    filename = part["file"].get("filename") if isinstance(part.get("file"), dict) else None
    return f"[{kind} {digest[:12]}.{ending}{f' ({filename})' if filename else ''}]" if name else f"[{kind}]"


def _call(call: Any) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return str(call)
    return f"calls {function.get('name')}({function.get('arguments')})"
