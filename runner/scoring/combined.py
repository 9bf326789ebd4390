"""Scorers made of other scorers: all of them, any of them, not this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from runner.scoring.targets import Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.scoring.targets import Scorer


class Combined(Comparison):
    """The lowest score of several scorers (``all``), or the highest (``any``). For scores of 0 and 1: and, or.

    Args:
        how: ``all`` or ``any``.
        scorers: by name.
    """

    def __init__(self, how: Literal["all", "any"], scorers: Mapping[str, Scorer]) -> None:
        self.name = how
        self._scorers = list(scorers.values())
        self._of = min if how == "all" else max
        self.blocks = any(scorer.blocks for scorer in self._scorers)

    def check(self, target: Any) -> None:
        """Raise DataError if one of the scorers cannot use `target`."""
        for scorer in self._scorers:
            scorer.check(target)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:
        """Score with each of them."""
        return self._of(cast("float", scorer.score(output, target, fields, parsed)) for scorer in self._scorers)

    def reads(self, output: str, target: Any, parsed: Any) -> bool:
        """Return whether one of the scorers found something to compare."""
        return any(scorer.reads(output, target, parsed) for scorer in self._scorers)


class Not(Comparison):
    """One minus the score of another scorer: for what an answer must not hold. Without anything to compare it is 1.0."""

    name = "not"

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.blocks = scorer.blocks

    def check(self, target: Any) -> None:
        """Raise DataError if the scorer cannot use `target`."""
        self._scorer.check(target)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:
        """Turn the other score around."""
        return 1.0 - cast("float", self._scorer.score(output, target, fields, parsed))
