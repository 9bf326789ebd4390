"""The embedding scorer: how alike the vectors of answer and target are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from runner.errors import DataError
from runner.scoring.normal import normal
from runner.scoring.targets import Question, texts, wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.scoring.targets import Asked, Models


class Embedding(Question):
    """Cosine of the angle between the vectors of answer and target, from 0 to 1; below 0 it counts as 0.

    The best of a list of targets counts. An answer without text is 0.0, and nobody is asked about it. What a likeness of 0.8
    means depends on the model: compare scores of one model only.

    Args:
        model: the run's name of the model.
    """

    name = "embedding"

    def __init__(self, model: str) -> None:
        self._model = model

    def check(self, target: Any) -> None:
        """Raise DataError if `target` is missing, empty or an object."""
        wanted(self.name, target)

    async def judge(self, asked: Asked, models: Models) -> float:
        """Ask for the vectors.

        Raises:
            DataError: there is no target, or the vectors cannot be compared.
            LMError, BudgetExceeded, CacheError: the model does not answer.
        """
        options = [normal(texts(option)[0]) for option in wanted(self.name, asked.row.target)]
        if not asked.output.strip():
            return 0.0
        lm = models(self._model)
        vector = await lm.embed(normal(asked.output))
        return max([_likeness(vector, await lm.embed(option)) for option in options])


def _likeness(one: Sequence[float], other: Sequence[float]) -> float:
    if len(one) != len(other):
        raise DataError(f"the vectors of answer and target have {len(one)} and {len(other)} numbers: two models made them")
    lengths = math.hypot(*one) * math.hypot(*other)
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return min(1.0, max(0.0, product / lengths)) if lengths else 0.0
