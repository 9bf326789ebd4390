"""Check the targets of a dataset with the scorers that will compare with them, before anything is sent."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from runner.errors import DataError
from runner.wording.numbers import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.scoring import Scorer
    from runner.types import Row

_SHOWN = 5
_FIRST = 20
"""Rows that are looked at before every run: if none of them can be scored, none of the others will be."""


class Targets(NamedTuple):
    """The outcome of a check.

    Attributes:
        rows: rows that were checked.
        unusable: how many of them have a target that a scorer cannot use.
        reasons: the first of these, each as ``row 'id': reason``.
    """

    rows: int
    unusable: int
    reasons: list[str]

    def __str__(self) -> str:
        more = f"\n  ... and {self.unusable - len(self.reasons):,} more" if self.unusable > len(self.reasons) else ""
        listed = "\n".join(f"  {reason}" for reason in self.reasons)
        return f"{self.unusable:,} of {count(self.rows, 'target')} cannot be scored:\n{listed}{more}"


def check(rows: Iterable[Row], scorers: Mapping[str, Scorer]) -> Targets:
    """Check the target of each row with each scorer."""
    seen = unusable = 0
    reasons: list[str] = []
    for row in rows:
        seen += 1
        try:
            for scorer in scorers.values():
                scorer.check(row.target)
        except DataError as error:
            unusable += 1
            if unusable <= _SHOWN:
                reasons.append(f"row {row.id!r}: {error}")
    return Targets(seen, unusable, reasons)


def told(rows: Iterable[Row], scorers: Mapping[str, Scorer]) -> str | None:
    """Say which targets cannot be used; None if all can be."""
    found = check(rows, scorers)
    return str(found) if found.unusable else None


def refuse(rows: Iterable[Row], scorers: Mapping[str, Scorer]) -> None:
    """Raise DataError if a target cannot be used."""
    if (found := check(rows, scorers)).unusable:
        raise DataError(str(found))


def refuse_hopeless(rows: Iterable[Row], scorers: Mapping[str, Scorer]) -> None:
    """Raise DataError if no target of the first rows can be used. A few bad ones are errors of their rows."""
    found = check(islice(rows, _FIRST), scorers)
    if found.unusable == found.rows:
        raise DataError(str(found))
