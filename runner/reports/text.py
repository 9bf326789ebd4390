"""Texts of rows, models and configs on their way to a page: cleaned of secrets, and shortened."""

from __future__ import annotations

import json
from typing import Any

from runner.secrets import redact

LONGEST = 50_000
"""The most characters of one text on a page; the rest is in ``samples.jsonl``, and the page says so."""

_SHORT = 2_000
"""The most characters of a text inside structured content, such as an image in base64, which nobody reads."""


def cut(text: str) -> str:
    """Return `text` without secrets, and no longer than `LONGEST`."""
    clean = redact(text)
    if len(clean) <= LONGEST:
        return clean
    return f"{clean[:LONGEST]}\n… cut here: the text has {len(clean):,} characters, and is whole in samples.jsonl"


def text_of(value: Any) -> str:
    """Return a text as it is, None as nothing, anything else as indented JSON."""
    if value is None:
        return ""
    return cut(value if isinstance(value, str) else json.dumps(_shortened(value), ensure_ascii=False, indent=2))


def whole(value: Any) -> str:
    """Return a config's value in full as one text without secrets."""
    return redact(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def brief(value: Any, most: int = 200) -> str:
    """Return a config's value shortened to `most` characters."""
    text = whole(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def redacted(value: Any) -> Any:
    """Return plain JSON data with every text in it, keys too, cleaned of secrets."""
    match value:
        case str():
            return redact(value)
        case list():
            return [redacted(one) for one in value]
        case dict():
            return {redact(key): redacted(one) for key, one in value.items()}
    return value


def _shortened(value: Any) -> Any:
    match value:
        case str():
            return value if len(value) <= _SHORT else f"{value[:_SHORT]}… ({len(value):,} characters)"
        case list():
            return [_shortened(one) for one in value]
        case dict():
            return {key: _shortened(one) for key, one in value.items()}
    return value
