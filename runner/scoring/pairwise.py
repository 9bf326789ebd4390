"""Compare two answers by a judge, in both orders, so that its liking for a place can be told from its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.errors import DataError
from runner.scoring.fences import fenced
from runner.scoring.judge import Judge, verdict_of
from runner.scoring.targets import Verdict
from runner.types import Judgement

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.scoring.targets import Asked, Models

FIRST, SECOND, TIE = "first", "second", "tie"

Other = "Callable[[Asked], str | None]"
"""Returns the answer that one is compared with; None if there is none."""


class Pairwise(Judge):
    """How an answer fares against another one to the same question: 1 it is better, 0.5 neither is, 0 it is worse.

    The judge is asked twice, with each answer first once. If it prefers the same answer both times, that one is better. If it
    prefers the same place, it has not told them apart: 0.5, with the label ``first`` or ``second``. The score ``NAME.first`` is
    the share of its verdicts for the answer that stood first (a tie is half a one): 0.5 is no bias.

    Args:
        other: returns the other answer.
        **arguments: as of `Judge`; the labels of its form are ``first``, ``second``, and perhaps ``tie``.
    """

    name = "pairwise"

    def __init__(self, *arguments: Any, other: Callable[[Asked], str | None], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._other = other

    @property
    def names(self) -> tuple[str, ...] | None:
        """Return its own name, and that of the bias."""
        return ("", "first")

    async def judge(self, asked: Asked, models: Models) -> Verdict:
        """Ask in both orders.

        Raises:
            DataError: there is no other answer, or a verdict cannot be used.
            LMError, BudgetExceeded, CacheError: the model does not answer.
        """
        other = self._other(asked)
        if other is None:
            raise DataError("there is no other answer to compare this one with")
        shown = self.shown.parts(asked)
        lm = models(self.model)
        places: list[str] = []
        costs: list[float | None] = []
        reasons: list[str] = []
        for one, two in ((asked.output, other), (other, asked.output)):
            parts = [*shown, "The first answer:", fenced("answer", one), "The second answer:", fenced("answer", two)]
            messages = [*self._head, {"role": "user", "content": self._asking(parts)}]
            verdict, completion, cost = await verdict_of(self.form, messages, lm)
            _, label, reason = verdict[""]
            places.append(str(label))
            costs.append(cost)
            reasons += [reason] if reason else []
        said = Judgement(
            label=_outcome(*places),
            reason="\n".join(reasons) or None,
            cost_usd=None if None in costs else sum(cost or 0.0 for cost in costs),
            request_key=completion.key,
            model=completion.response.model,
        )
        value = {"win": 1.0, "loss": 0.0}.get(str(said.label), 0.5)
        first = sum({FIRST: 1.0, SECOND: 0.0}.get(place, 0.5) for place in places) / len(places)
        return Verdict({"": value, "first": first}, {"": said})


def _outcome(one: str, other: str) -> str:
    """Return what two verdicts say together, of which the first has our answer first: win, loss, tie, or only a place."""
    if one == other:
        return one  # twice the same place, or twice a tie
    if TIE in (one, other):  # one verdict and one tie: half a win, or half a loss, which is no verdict
        return TIE
    return "win" if one == FIRST else "loss"
