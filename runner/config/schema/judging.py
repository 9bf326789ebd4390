"""Declare the scorers that ask a model for their verdict: a judge, a comparison of two answers, a panel of judges."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from runner.config.schema.base import Config, Name, Text
from runner.config.schema.model import LocalModel, Model, ServerModel
from runner.config.schema.request import Sampling
from runner.config.schema.running import Budget
from runner.config.schema.scored import Scored


class Asking(Scored, frozen=True, kw_only=True):
    """Hold the field of scorers that ask models: the part of the run's budget that they may use."""

    budget: Budget = Budget()


class JudgeExample(Config, frozen=True, kw_only=True):
    """Show the judge an answer and its verdict: a label, or a number of the scale; `question` is what was asked."""

    answer: str
    verdict: str | float
    question: str | None = None
    reason: str | None = None


class When(Config, frozen=True, kw_only=True):
    """Ask the judge only where another score is above and below these bounds; elsewhere that score is the judge's."""

    score: Text
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        if self.above is None and self.below is None:
            raise ValueError("when needs a bound: above, below, or both")


class Judging(Asking, frozen=True, kw_only=True):
    """Hold the fields of judges of one answer and of two."""

    rubric: Text | None = None
    rubric_file: Text | None = None
    question: Text | None = None
    reference: bool = False
    context: list[Text] = []
    show_reasoning: bool = False
    explain: bool = True
    send_schema: Literal["json_schema", "json_object", "none"] = "json_schema"
    model: Model = LocalModel()
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        if self.rubric is not None and self.rubric_file is not None:
            raise ValueError("rubric and rubric_file are both given; keep one")
        if self.sampling.repeats != 1:
            raise ValueError("sampling.repeats: a judge is asked once for each answer; leave it at 1")


class JudgeScoring(Judging, frozen=True, kw_only=True, tag="judge"):
    """Have a model judge each answer by a rubric: with labels, or with a number of a scale."""

    labels: dict[Text, float] = {}
    scale: Annotated[list[float], Meta(min_length=2, max_length=2)] | None = None
    criteria: dict[Name, Text] = {}
    examples: list[JudgeExample] = []
    when: When | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels and self.scale is not None:
            raise ValueError("labels and scale are both given; keep one")
        if len(self.labels) == 1:
            raise ValueError("labels: a judge needs at least two to choose from")
        if self.scale is not None and not self.scale[0] < self.scale[1]:
            raise ValueError("scale: goes from the worst number to the best, and the second must be larger")
        if self.criteria and self.examples:
            raise ValueError("examples have one verdict, but criteria ask for several; leave one of them out")


class PairwiseScoring(Judging, frozen=True, kw_only=True, tag="pairwise"):
    """Have a model compare each answer with another one, in both orders: 1 if it is better, 0.5 for a tie, 0 if it is worse."""

    against: Text | None = None
    column: Text | None = None
    ties: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.against is not None and self.column is not None:
            raise ValueError("against and column are both given; compare with one of them")


class EmbeddingScoring(Asking, frozen=True, kw_only=True, tag="embedding"):
    """Score the likeness of meaning to the target: the cosine between the vectors that an embedding model gives both."""

    model: Model = ServerModel()


class PanelScoring(Asking, frozen=True, kw_only=True, tag="panel"):
    """Have several judges judge each answer: the label that most of them choose, or the mean of their scores."""

    judges: dict[Name, JudgeScoring] = {}
    combine: Literal["majority", "mean"] = "majority"

    def __post_init__(self) -> None:
        for name, judge in self.judges.items():
            judge.refuse_inside(f"judges.{name}")
