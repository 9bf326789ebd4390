"""A panel: several judges judge each answer, and most of them, or their mean, decide."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import DataError
from runner.scoring.targets import Question, Verdict
from runner.types import Judgement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.scoring.judge import Judge
    from runner.scoring.targets import Asked, Models


class Panel(Question):
    """The verdict of several judges. Each one's own score is ``NAME.JUDGE``, and ``NAME.agreement`` the share of pairs alike.

    With ``majority`` the label that most judges choose decides, and a draw is the mean of the labels that are level; with
    ``mean`` the mean of their scores does. A judge that gives no usable verdict fails the sample.

    Args:
        judges: by name; each has one verdict.
        combine: how they are combined.
    """

    name = "panel"

    def __init__(self, judges: Mapping[str, Judge], combine: Literal["majority", "mean"]) -> None:
        self.judges = dict(judges)
        self._combine = combine

    @property
    def identity(self) -> str:
        """Return a digest of what the judges are asked, and how they are combined."""
        return " ".join([self._combine, *(f"{name}:{judge.identity}" for name, judge in self.judges.items())])

    @property
    def names(self) -> tuple[str, ...] | None:
        """Return its own name, those of the judges, and ``agreement``."""
        return ("", *self.judges, "agreement")

    def check(self, target: Any) -> None:
        """Raise DataError if a judge is shown the target, and it is missing."""
        for judge in self.judges.values():
            judge.check(target)

    async def judge(self, asked: Asked, models: Models) -> Verdict:
        """Ask each judge. Raises as `Judge.judge`."""
        scores: dict[str, float] = {}
        said: dict[str, Judgement] = {}
        for name, judge in self.judges.items():
            verdict = await judge.judge(asked, models)
            if not isinstance(verdict, Verdict):
                raise DataError(f"the judge {name!r} of a panel has no verdict")
            scores[name] = verdict.scores[""]
            if verdict.judgements:
                said[name] = verdict.judgements[""]
        values = list(scores.values())
        pairs = list(combinations(values, 2))
        value, label = (fmean(values), None) if self._combine == "mean" else _majority(scores, said)
        agreement = sum(one == other for one, other in pairs) / len(pairs) if pairs else 1.0
        return Verdict({"": value, **scores, "agreement": agreement}, {"": Judgement(label=label), **said} if label else said)


def _majority(scores: Mapping[str, float], said: Mapping[str, Judgement]) -> tuple[float, str | None]:
    """Return the score that most judges give, and its label; the mean of those that are level, without one."""
    counts = Counter(scores.values()).most_common()
    level = [value for value, count in counts if count == counts[0][1]]
    if len(level) > 1:
        return fmean(level), None
    label = next((said[name].label for name, value in scores.items() if value == level[0] and name in said), None)
    return level[0], label
