"""Read the body of a refusal, in whatever form a server sends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.network.delay import in_field, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 8_000
"""How many characters of a body are looked at; longer ones are pages for people."""
_MESSAGE = ("message", "msg", "error_msg", "status_msg", "detail", "error", "title", "description", "reason")
"""Names of the field that holds the message, the best one first."""
_ECHOED = frozenset({"input", "inputs", "prompt", "messages", "body", "ctx", "failed_generation", "user_id"})
"""Fields in which servers repeat what they were asked. The words of a prompt say nothing about the refusal."""
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Said(NamedTuple):
    """The body of a refusal, read.

    Attributes:
        message: for people.
        words: all that it says, one ``name=value`` per line, for the rules of `runner.network.words`.
        wait_s: seconds that it asks to wait; None if it names none.
    """

    message: str
    words: str
    wait_s: float | None


def said(body: bytes | str) -> Said:
    """Return what a body says: JSON in any of the forms in use, or text."""
    text = body[:LONGEST].decode(errors="replace") if isinstance(body, bytes) else body[:LONGEST]
    try:
        tree = msgspec.json.decode(body)
    except _UNREADABLE:
        return Said(text, text, in_words(text))
    if not isinstance(tree, dict | list):
        return Said(text, text, in_words(text))
    return of_tree(tree, text)


def of_tree(tree: Any, text: str = "") -> Said:
    """Return what a decoded body says. `text` is its message if it has none of its own."""
    leaves = list(_leaves(tree))
    words = "\n".join(f"{name}={value}" for name, value in leaves)[:LONGEST]
    waits = [wait for name, value in leaves if (wait := in_field(name, value)) is not None]
    return Said(_message(tree) or text, words, max(waits) if waits else in_words(words))


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each field that holds a text or a number, at any depth."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key.lower() not in _ECHOED:
                yield from _leaves(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value, name)
    elif tree is not None:
        yield name, tree


def _message(tree: Any) -> str:
    """Return the message of a body, an error or a part of one; empty if there is none."""
    if isinstance(tree, list):
        return "; ".join(text for part in tree[:3] if (text := _message(part)))
    if not isinstance(tree, dict):
        return str(tree) if tree is not None else ""
    if isinstance(inner := tree.get("error") or tree.get("errors") or tree.get("base_resp"), dict | list):
        return _message(inner)
    text = next((text for name in _MESSAGE if (text := _message(tree.get(name)))), "")
    if place := tree.get("loc"):  # FastAPI names the field that it refuses
        text = f"{'.'.join(map(str, place)) if isinstance(place, list) else place}: {text}"
    if isinstance(upstream := tree.get("metadata"), dict) and (
        raw := upstream.get("raw")
    ):  # OpenRouter passes on what it was told
        text = f"{text}: {said(raw).message if isinstance(raw, str) else _message(raw)}"
    return text
