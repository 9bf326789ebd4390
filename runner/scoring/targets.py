"""What a scorer is, and what it may expect of a row's target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Scorer(Protocol):
    """Says how good one answer is.

    The caller decides which samples are scored (answers do, errors and refusals never) and knows which row it is at: a scorer
    that cannot use a target raises a `DataError` that says why, and the caller puts the row's id before it.

    Attributes:
        name: the metric's name in ``scores``.
    """

    name: str

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:
        """Score one answer.

        Args:
            output: the model's text, as it came.
            target: the answer wanted; most scorers take a list as "any of these".
            fields: the row's columns.
            parsed: what the adapter made of `output`, or None.

        Returns:
            A score from 0.0 to 1.0; `Python` may return any finite number.

        Raises:
            DataError: the target is missing or of no use to this scorer.
        """


def wanted(scorer: str, target: Any) -> list[Any]:
    """Return the targets of which any one will do; `scorer` is named in the error.

    Raises:
        DataError: there is none.
    """
    options = target if isinstance(target, list) else [target]
    if not options or any(option is None for option in options):
        raise DataError(f"there is no target, which the scorer {scorer!r} compares with; set data.target to its column")
    return options
