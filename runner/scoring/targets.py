"""The interface of a scorer, and the check of a row's target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Scorer(Protocol):
    """An object that scores one answer.

    The caller decides which samples are scored (answers are, errors and refusals never). A scorer that cannot use a target raises
    a `DataError` that says why; the caller, who knows the row, puts its id in front.

    Attributes:
        name: the metric's name in ``scores``.
    """

    name: str

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:
        """Score one answer.

        Args:
            output: the model's text, as it came.
            target: the expected answer; most scorers take a list as "any of these".
            fields: the row's columns.
            parsed: `output` as the adapter parsed it, or None.

        Returns:
            A score from 0.0 to 1.0; `Python` may return any finite number.

        Raises:
            DataError: the target is missing, or this scorer cannot use it.
        """


def wanted(scorer: str, target: Any) -> list[Any]:
    """Return the accepted targets; the error names `scorer`.

    Raises:
        DataError: there is none.
    """
    options = target if isinstance(target, list) else [target]
    if not options or any(option is None for option in options):
        raise DataError(f"there is no target, which the scorer {scorer!r} compares with; set data.target to its column")
    return options
