"""Differences between two pieces of plain data, for people."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SHOWN_LINES = 20
_SHOWN_CHARACTERS = 80
_NOTHING = object()

BEGAN = ("when the run began", "now")


def differences(was: Any, now: Any, path: str = "", *, names: tuple[str, str] = BEGAN) -> Iterator[str]:
    """Yield every value in which two pieces of plain data differ, as ``path: was -> is``; long text as a unified diff.

    Args:
        was: the old value; dicts and lists are compared part by part.
        now: the new value.
        path: their path in the whole.
        names: the names of the two in unified diffs.
    """
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            below = f"{path}.{key}" if path else str(key)
            yield from differences(was.get(key, _NOTHING), now.get(key, _NOTHING), below, names=names)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, pair in enumerate(zip(was, now, strict=True)):
            yield from differences(*pair, path=f"{path}[{index}]", names=names)
    elif was != now:
        if isinstance(was, str) and isinstance(now, str) and ("\n" in was + now or len(was + now) > 2 * _SHOWN_CHARACTERS):
            yield "\n".join([f"{path}:", *(f"  {line}" for line in unified(was, now, names))])
        else:
            yield f"{path}: {_shown(was)} -> {_shown(now)}"


def _shown(value: Any) -> str:
    if value is _NOTHING:
        return "(nothing)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 4]} ..."


def unified(was: str, now: str, names: tuple[str, str] = BEGAN) -> list[str]:
    """Return the lines in which two texts differ, as a unified diff with these `names`."""
    lines = list(difflib.unified_diff(was.splitlines(), now.splitlines(), *names, lineterm="", n=1))
    return lines or ["(only line ends have changed)"]


def indented(lines: Sequence[str]) -> str:
    """Return lines for the end of a message: indented, and limited in number."""
    flat = [line for text in lines for line in text.splitlines()]
    more = [f"... and {len(flat) - _SHOWN_LINES:,} lines more"] if len(flat) > _SHOWN_LINES else []
    return "\n".join(f"  {line}" for line in [*flat[:_SHOWN_LINES], *more])
