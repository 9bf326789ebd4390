"""Declare `scoring` and `expect`: the scorers, how samples count, and what a run has to reach."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from runner.config.schema.base import Config, Kind, Name, Seconds, Text
from runner.config.schema.judging import Asking, EmbeddingScoring, JudgeScoring, PairwiseScoring, PanelScoring
from runner.config.schema.model import Model  # noqa: TC001 - msgspec evaluates the annotation
from runner.config.schema.scored import Scored


class NoScoring(Kind, frozen=True, kw_only=True, tag="none"):
    """Record answers without scoring them."""


class ExactScoring(Scored, frozen=True, kw_only=True, tag="exact"):
    """Score 1 if the answer is the target."""

    ignore_case: bool = False
    strip: bool = True
    straight_quotes: bool = False


class ContainsScoring(Scored, frozen=True, kw_only=True, tag="contains"):
    """Score 1 if the answer contains the target."""

    ignore_case: bool = True
    whole_word: bool = False
    straight_quotes: bool = False


class RegexScoring(Scored, frozen=True, kw_only=True, tag="regex"):
    """Score 1 if the pattern is found in the answer."""

    pattern: str | None = None
    ignore_case: bool = False


class ChoiceScoring(Scored, frozen=True, kw_only=True, tag="choice"):
    """Score 1 if the label that the answer names is the target."""

    labels: list[str] = []
    pick: Literal["first", "last", "only"] = "first"
    ignore_case: bool = True


class NumericScoring(Scored, frozen=True, kw_only=True, tag="numeric"):
    """Score 1 if the number in the answer is the target's, within a tolerance."""

    tolerance: Annotated[float, Meta(ge=0)] = 1e-6
    relative: Annotated[float, Meta(ge=0)] = 0.0
    extract: Literal["last", "first"] = "last"
    decimal: Literal["point", "comma"] = "point"
    target_pattern: str | None = None


class MathScoring(Scored, frozen=True, kw_only=True, tag="math"):
    """Score 1 if the answer equals the target as mathematics."""

    limit_s: Seconds = 10.0


class JsonMatchScoring(Scored, frozen=True, kw_only=True, tag="json_match"):
    """Score 1 if the JSON in the answer equals the target's, on the keys in `keys`."""

    keys: list[str] | None = None


class F1Scoring(Scored, frozen=True, kw_only=True, tag="f1"):
    """Score the overlap of words with the target, as in SQuAD: 0 to 1."""


class EditScoring(Scored, frozen=True, kw_only=True, tag="edit"):
    """Score the likeness to the target: 1 minus the edit distance over the length."""

    ignore_case: bool = False


class ChrfScoring(Scored, frozen=True, kw_only=True, tag="chrf"):
    """Score the overlap of character n-grams with the target: 0 to 1."""

    word_order: Annotated[int, Meta(ge=0, le=4)] = 0


class BleuScoring(Scored, frozen=True, kw_only=True, tag="bleu"):
    """Score BLEU of each answer: 0 to 1."""

    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"


class RougeScoring(Scored, frozen=True, kw_only=True, tag="rouge"):
    """Score ROUGE of each answer: 0 to 1."""

    variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    measure: Literal["f1", "precision", "recall"] = "f1"


class JsonSchemaScoring(Scored, frozen=True, kw_only=True, tag="json_schema"):
    """Score 1 if the answer holds JSON that follows the schema."""

    schema: dict[str, Any] = {}


class MeasureScoring(Scored, frozen=True, kw_only=True, tag="measure"):
    """Use a quantity of the sample as its score, or whether it keeps a bound."""

    what: Literal[
        "latency_s",
        "first_token_s",
        "cost_usd",
        "prompt_tokens",
        "completion_tokens",
        "characters",
        "words",
        "turns",
        "tool_calls",
    ] = "latency_s"
    at_most: Annotated[float, Meta(ge=0)] | None = None


class ToolsScoring(Scored, frozen=True, kw_only=True, tag="tools"):
    """Score 1 if the model called the tools that the target lists."""

    order: Literal["exact", "any", "subset"] = "exact"
    arguments: bool = True


class PythonScoring(Asking, frozen=True, kw_only=True, tag="python"):
    """Score with a function of your own: ``file.py:function``, called with (output, target, row), and with models."""

    function: Text
    models: dict[Name, Model] = {}


class PluginScoring(Scored, frozen=True, kw_only=True, tag="plugin"):
    """Score with a scorer of an installed package (entry point group ``ostinato.scorers``)."""

    name: Text
    params: dict[str, Any] = {}


Comparing: TypeAlias = (
    ExactScoring | ContainsScoring | RegexScoring | ChoiceScoring | NumericScoring | MathScoring | JsonMatchScoring | F1Scoring
    | EditScoring | ChrfScoring | BleuScoring | RougeScoring | JsonSchemaScoring
)  # fmt: skip
"""Scorers that may be parts of others."""


class NotScoring(Scored, frozen=True, kw_only=True, tag="not"):
    """Score 1 minus another score."""

    scorer: Comparing = ExactScoring()

    def __post_init__(self) -> None:
        self.scorer.refuse_inside("scorer")


class AllScoring(Scored, frozen=True, kw_only=True, tag="all"):
    """Score the lowest of several scores: 1 if all are 1."""

    scorers: dict[str, Comparing | NotScoring] = {}

    def __post_init__(self) -> None:
        for name, scorer in self.scorers.items():
            scorer.refuse_inside(f"scorers.{name}")


class AnyScoring(Scored, frozen=True, kw_only=True, tag="any"):
    """Score the highest of several scores: 1 if any is 1."""

    scorers: dict[str, Comparing | NotScoring] = {}

    def __post_init__(self) -> None:
        for name, scorer in self.scorers.items():
            scorer.refuse_inside(f"scorers.{name}")


Scorer: TypeAlias = (
    Comparing | NotScoring | AllScoring | AnyScoring | MeasureScoring | ToolsScoring | PythonScoring | PluginScoring
    | JudgeScoring | PairwiseScoring | PanelScoring | EmbeddingScoring
)  # fmt: skip


class SeveralScoring(Asking, frozen=True, kw_only=True, tag="several"):
    """Use several scorers, by name. The first is the primary one."""

    scorers: dict[str, Scorer] = {}

    def __post_init__(self) -> None:
        for name, scorer in self.scorers.items():
            scorer.refuse_inside(f"scorers.{name}")


Scoring: TypeAlias = NoScoring | Scorer | SeveralScoring


class Expect(Config, frozen=True, kw_only=True):
    """Say what a run has to reach; its exit code tells whether it does."""

    that: list[Text] = []
    rows: Text | None = None
    stop_early: bool = False
