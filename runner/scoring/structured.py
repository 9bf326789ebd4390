"""The json_match scorer: compares the answer as JSON with a JSON target."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runner.answers.schema import Schema
from runner.answers.values import NOTHING, last, same
from runner.errors import DataError
from runner.scoring.targets import Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class JsonMatch(Comparison):
    """1.0 when the answer's JSON equals the target's, else 0.0 (also when the answer holds no JSON).

    The answer's JSON is what the adapter parsed; else the last value in the text that is of the target's type (object, list) and
    has the keys that are compared, in a fence or outside. Numbers compare by value (1 equals 1.0); the order of keys does not
    matter, the order of lists does.

    Args:
        keys: compare these keys of two objects and ignore all others. Default None: everything must be equal.
    """

    name = "json_match"

    def __init__(self, *, keys: Sequence[str] | None = None) -> None:
        self._keys = None if keys is None else tuple(keys)

    def check(self, target: Any) -> None:
        """Raise DataError if `target` is missing, is not JSON, or lacks a key that is compared."""
        self._target(target)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Compare the JSON; the target is a dict, a list, or JSON text. A list is one JSON value here, not "any of"."""
        expected = self._target(target)
        answer = parsed if parsed is not None else self._found(output, expected)
        if self._keys is None:
            return float(same(answer, expected))
        if not isinstance(answer, dict):
            return 0.0
        return float(all(key in answer and same(answer[key], expected[key]) for key in self._keys))

    def reads(self, output: str, target: Any, parsed: Any) -> bool:
        """Return whether the answer holds JSON of the target's type."""
        return parsed is not None or self._found(output, self._target(target)) is not NOTHING

    def _found(self, output: str, expected: Any) -> Any:
        """Return the last value of the expected type, best with the compared keys."""
        alike = last(output, lambda value: _kind(value) is _kind(expected) and all(key in value for key in self._keys or ()))
        return alike if alike is not NOTHING else last(output, lambda value: _kind(value) is _kind(expected))

    def _target(self, target: Any) -> Any:
        if target is None or (isinstance(target, str) and not target.strip()):
            raise DataError(f"there is no target, which the scorer {self.name!r} compares with; set data.target to its column")
        value = target
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


class JsonSchema(Comparison):
    """1.0 when the answer holds JSON that follows a schema, else 0.0. No target is needed.

    The answer's JSON is what the adapter parsed, else any value in the text, in a fence or outside.

    Args:
        schema: a JSON Schema, as of the json adapter.

    Raises:
        ConfigError: it is not a valid JSON Schema.
    """

    name = "json_schema"

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = Schema(schema, "scoring.schema")

    def check(self, target: Any) -> None:
        """Accept any target: none is needed."""

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Check what was parsed, or look for a value that follows the schema."""
        if parsed is not None:
            return float(not self._schema.errors(parsed))
        return float(last(output, lambda value: not self._schema.errors(value)) is not NOTHING)

    def reads(self, output: str, target: Any, parsed: Any) -> bool:  # noqa: ARG002 - Scorer
        """Return whether there is JSON in the answer."""
        return parsed is not None or last(output, lambda _: True) is not NOTHING


def _kind(value: Any) -> type:
    """Return the type that a value must have to be compared: numbers are of one type."""
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)
