"""Values inside a column, by a path such as ``answers.text``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from runner.data.sources import Fields


def inside(fields: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path such as ``answers.text``. A list on the way gives the list of what its items have there.

    Raises:
        KeyError: there is no such value; the argument is the part of the path that is missing.
    """
    value: Any = fields
    for part in path.split("."):
        value = _step(value, part)
    return value


def _step(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return value[part]
    if not isinstance(value, list):
        raise KeyError(part)
    if part.isdecimal():
        if int(part) >= len(value):
            raise KeyError(part)
        return value[int(part)]
    found: list[Any] = []
    for item in value:
        at = _step(item, part)
        found += at if isinstance(at, list) else [at]
    return found


def has(fields: Mapping[str, Any], path: str) -> bool:
    """Return whether there is a value at a path."""
    try:
        inside(fields, path)
    except KeyError:
        return False
    return True


def not_inside(fields: Fields, path: str, key: str) -> str:
    """Say which part of a path a row lacks, which key of the config names it, and what there is instead."""
    value: Any = fields
    parts = path.split(".")
    for number, part in enumerate(parts):
        try:
            value = _step(value, part)
        except KeyError:
            where = ".".join(parts[:number])
            keys = list(value) if isinstance(value, Mapping) else None
            has = f"its keys are {', '.join(map(repr, keys))}" if keys else f"it is {type(value).__name__}, without keys"
            return f"{where!r} has nothing named {part!r}, which {key}={path} names{suggest(part, keys or ())}; {has}"
    raise AssertionError(path)
