"""How two pieces of plain data differ, in lines that people read. Knows nothing of what the data means."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SHOWN_LINES = 20
_SHOWN_CHARACTERS = 80
_NOTHING = object()


def differences(was: Any, now: Any, path: str = "") -> Iterator[str]:
    """Every value in which two pieces of plain data differ, as ``path: was -> is``; long text as a unified diff."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            below = f"{path}.{key}" if path else str(key)
            yield from differences(was.get(key, _NOTHING), now.get(key, _NOTHING), below)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, pair in enumerate(zip(was, now, strict=True)):
            yield from differences(*pair, path=f"{path}[{index}]")
    elif was != now:
        if isinstance(was, str) and isinstance(now, str) and ("\n" in was + now or len(was + now) > 2 * _SHOWN_CHARACTERS):
            yield "\n".join([f"{path}:", *(f"  {line}" for line in unified(was, now))])
        else:
            yield f"{path}: {shown(was)} -> {shown(now)}"


def shown(value: Any) -> str:
    """A value as JSON, of no great length."""
    if value is _NOTHING:
        return "(nothing)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 4]} ..."


def unified(was: str, now: str) -> list[str]:
    """The lines of a unified diff of two texts."""
    lines = list(difflib.unified_diff(was.splitlines(), now.splitlines(), "when the run began", "now", lineterm="", n=1))
    return lines or ["(only line ends have changed)"]


def indented(lines: Sequence[str]) -> str:
    """Lines, indented and of no great number, as the end of a message."""
    flat = [line for text in lines for line in text.splitlines()]
    more = [f"... and {len(flat) - _SHOWN_LINES:,} lines more"] if len(flat) > _SHOWN_LINES else []
    return "\n".join(f"  {line}" for line in [*flat[:_SHOWN_LINES], *more])
