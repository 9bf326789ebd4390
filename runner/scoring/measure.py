"""The measure scorer: latency, cost, tokens or length as a score, or a bound on one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from runner.scoring.calls import calls_of
from runner.scoring.targets import Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.types import Sample

What = Literal[
    "latency_s", "first_token_s", "cost_usd", "prompt_tokens", "completion_tokens", "characters", "words", "turns", "tool_calls"
]


class Measure(Comparison):
    """A quantity of a sample; with a bound 1.0 if it is kept, else 0.0. A sample whose quantity is unknown has no such score.

    Answers from the cache have no latency, and cost nothing.

    Args:
        what: ``latency_s``, ``first_token_s`` (seconds), ``cost_usd`` (dollars), ``prompt_tokens``, ``completion_tokens`` (as the
            server counts), ``characters`` or ``words`` of the answer, without its thinking; ``turns`` (requests that were
            answered) or ``tool_calls`` on the way to it.
        at_most: the bound. Default None: the quantity itself is the score.
    """

    def __init__(self, what: What, *, at_most: float | None = None) -> None:
        self.name = what
        self._what = what
        self._at_most = at_most
        self.measures = at_most is None

    def check(self, target: Any) -> None:
        """Accept any target: none is needed."""

    def measure(self, sample: Sample, output: str) -> float | None:
        """Return the score of a sample; None if the quantity is unknown."""
        found = self._quantity(sample, output)
        if found is None or self._at_most is None:
            return None if found is None else float(found)
        return float(found <= self._at_most)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Return the length; other quantities need the sample (`measure`), and are 0.0 here."""
        found = len(output) if self._what == "characters" else len(output.split()) if self._what == "words" else 0
        return float(found) if self._at_most is None else float(found <= self._at_most)

    def _quantity(self, sample: Sample, output: str) -> float | None:
        match self._what:
            case "characters":
                return len(output)
            case "words":
                return len(output.split())
            case "turns":
                return 1 if sample.steps is None else sum(step.error is None for step in sample.steps)
            case "tool_calls":
                return len(calls_of(sample))
            case "prompt_tokens" | "completion_tokens":
                return None if sample.usage is None else getattr(sample.usage, self._what)
            case _:
                found: float | None = getattr(sample, self._what)
                return found
