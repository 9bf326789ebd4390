"""Write attachments into messages: as references in the key and the record, as OpenAI's parts with base64 on the wire."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from runner.attachments.media import Kind, media_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.types import Message

REFERENCE = re.compile(r"sha256:([0-9a-f]{64}\.[a-z0-9]{2,4})")
"""Stands in a message for an attachment: the hash of its bytes, and the ending of its format."""

_TYPES: dict[str, Kind] = {"image_url": "image", "input_audio": "audio", "file": "file"}


def reference(kind: Kind, name: str, *, detail: str | None = None, filename: str | None = None) -> dict[str, Any]:
    """Return the part of a message that refers to an attachment, in OpenAI's form.

    Args:
        kind: what it is.
        name: its name in the store, ``<sha256>.<ending>``.
        detail: how closely the model looks at an image (``low``, ``high``, ``auto``); None: as the provider likes.
        filename: the name of a file that the model sees.
    """
    place = f"sha256:{name}"
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": place, **({"detail": detail} if detail else {})}}
    if kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": place, "format": name.rpartition(".")[2]}}
    return {"type": "file", "file": {"filename": filename or "document.pdf", "file_data": place}}


def kind_of_part(part: Any) -> Kind | None:
    """Return what a part of a message attaches; None for text."""
    return _TYPES.get(str(part.get("type"))) if isinstance(part, dict) else None


def names_in(messages: Sequence[Message] | None) -> Iterator[tuple[Kind, str]]:
    """Yield the attachments that messages refer to: their kinds and their names in the store."""
    for message in messages or ():
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for part in content:
            kind = kind_of_part(part)
            if kind is not None and (found := REFERENCE.fullmatch(str(_place(part)))):
                yield kind, found[1]


def expanded(messages: Sequence[Message], read: Callable[[str], bytes]) -> list[Message]:
    """Return messages as they are sent: references replaced by the bytes that `read` gives for a name. Raises as `read` does."""
    return [
        {**message, "content": [_sent(part, read) for part in content]}
        if isinstance(content := message.get("content"), list)
        else message
        for message in messages
    ]


def _place(part: dict[str, Any]) -> Any:
    """Return where the content of an attached part stands."""
    inner = part.get(part["type"])
    if not isinstance(inner, dict):
        return inner
    return inner.get("url") or inner.get("data") or inner.get("file_data")


def _sent(part: dict[str, Any], read: Callable[[str], bytes]) -> dict[str, Any]:
    kind = kind_of_part(part)
    if kind is None or not (found := REFERENCE.fullmatch(str(_place(part)))):
        return part
    name = found[1]
    text = base64.b64encode(read(name)).decode()
    inner = part[part["type"]]
    if kind == "audio":
        return {**part, "input_audio": {**inner, "data": text}}
    url = f"data:{media_type(name)};base64,{text}"
    return {**part, part["type"]: {**inner, "url" if kind == "image" else "file_data": url}}
