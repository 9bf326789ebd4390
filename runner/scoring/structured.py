"""The json_match scorer: compares the answer as JSON with a JSON target."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from runner.errors import DataError
from runner.scoring.targets import wanted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OPENING = re.compile(r"[{\[]")
_decode_at = json.JSONDecoder().raw_decode
"""The standard library's decoder, which can start in the middle of a text and ignores what follows the value."""


_NOTHING = object()
"""Not equal to any JSON value, null included."""


class JsonMatch:
    """1.0 when the answer's JSON equals the target's, else 0.0 (also when the answer holds no JSON).

    The answer's JSON is what the adapter parsed, else the whole text, else the first object or list in it (which finds one in a
    ``` fence too). Numbers compare by value (1 equals 1.0); the order of keys does not matter, the order of lists does.

    Args:
        keys: compare these keys of two objects and ignore all others. Default None: everything must be equal.
    """

    name = "json_match"

    def __init__(self, *, keys: Sequence[str] | None = None) -> None:
        self._keys = None if keys is None else tuple(keys)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Compare the JSON; the target is a dict, a list, or JSON text. A list is one JSON value here, not "any of"."""
        expected = self._target(target)
        answer = parsed if parsed is not None else first_json(output)
        if self._keys is None:
            return float(_same(answer, expected))
        if not isinstance(answer, dict):
            return 0.0
        return float(all(key in answer and _same(answer[key], expected[key]) for key in self._keys))

    def _target(self, target: Any) -> Any:
        [value] = wanted(self.name, [target])
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise DataError(f"the target {value[:80]!r} is not JSON: {error}") from error
        if self._keys is not None:
            if not isinstance(value, dict):
                raise DataError(f"the target is not an object, so it has none of the keys {list(self._keys)}")
            if lacking := [key for key in self._keys if key not in value]:
                raise DataError(f"the target lacks {lacking}, which scoring.keys names; it has {list(value)}")
        return value


def first_json(text: str) -> Any:
    """Return the JSON value that `text` is, else the first object or list inside it, else a value that equals no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    for opening in _OPENING.finditer(text):
        try:
            return _decode_at(text, opening.start())[0]
        except ValueError:
            continue
        except RecursionError:  # a model caught in a loop of brackets
            return _NOTHING
    return _NOTHING


def _same(one: Any, other: Any) -> bool:
    """Compare as JSON does, where true is not 1 (in Python it is)."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
