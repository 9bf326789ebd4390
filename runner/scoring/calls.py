"""The tools scorer: which tools were called on the way to an answer, with which arguments, in which order."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from runner.errors import DataError
from runner.scoring.targets import Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.types import Sample

Order: TypeAlias = Literal["exact", "any", "subset"]
Called: TypeAlias = "tuple[str, Any]"
"""A call: the tool's name and its arguments as data."""


class Calls(Comparison):
    """1.0 if the model called the tools that the target lists, else 0.0.

    The target is a list of names, or of ``{name, arguments}``; without arguments any will do. An empty list expects no call.

    Args:
        order: ``exact``: these calls in this order, and no others; ``any``: these in any order, and no others; ``subset``: these,
            in any order, and perhaps others.
        arguments: whether the arguments are compared.
    """

    name = "tools"

    def __init__(self, *, order: Order = "exact", arguments: bool = True) -> None:
        self._order = order
        self._arguments = arguments

    def check(self, target: Any) -> None:
        """Raise DataError if the target is not a list of calls."""
        _expected(target)

    def measure(self, sample: Sample, output: str) -> float:  # noqa: ARG002 - as `Measure`
        """Return the score of a sample. Raises DataError if its target cannot be used."""
        expected, made = _expected(sample.target), calls_of(sample)
        if self._order == "exact":
            return float(len(made) == len(expected) and all(map(self._fits, expected, made)))
        left = list(made)
        for wanted in sorted(expected, key=lambda call: call[1] is None):  # those with arguments choose first
            found = next((call for call in left if self._fits(wanted, call)), None)
            if found is None:
                return 0.0
            left.remove(found)
        return float(self._order == "subset" or not left)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:
        """Raise NotImplementedError: it needs the whole sample (`measure`)."""
        raise NotImplementedError

    def _fits(self, wanted: Called, made: Called) -> bool:
        return wanted[0] == made[0] and (not self._arguments or wanted[1] is None or wanted[1] == made[1])


def calls_of(sample: Sample) -> list[Called]:
    """Return the calls of tools that the model made for a sample, in order."""
    if sample.steps is None:
        return [_call(call.get("function") or {}) for call in sample.tool_calls or ()]
    said = [step.added[-1] for step in sample.steps if step.error is None and step.added]
    return [_call(call["function"]) for message in said for call in message.get("tool_calls") or ()]


def _expected(target: Any) -> list[Called]:
    if isinstance(target, str):
        try:
            target = msgspec.json.decode(target)
        except (msgspec.DecodeError, RecursionError):
            target = [target]
    if not isinstance(target, list):
        raise DataError(
            f"the target is {target!r}, and the scorer 'tools' compares with a list of calls: [{{name, arguments}}, ...]"
        )
    found: list[Called] = []
    for one in target:
        call = {"name": one} if isinstance(one, str) else one
        if not isinstance(call, dict) or not isinstance(call.get("name"), str) or call.keys() - {"name", "arguments"}:
            raise DataError(f"the target lists {one!r}, which is neither the name of a tool nor {{name, arguments}}")
        found.append(_call(call))
    return found


def _call(function: Mapping[str, Any]) -> Called:
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(msgspec.DecodeError, RecursionError):  # else it is compared as it was written
            arguments = msgspec.json.decode(arguments or "{}")
    return str(function.get("name")), arguments
