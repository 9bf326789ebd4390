"""The rouge scorer: overlap with a summary. By rouge-score, with words of our own: its default sees nothing but a-z and 0-9."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import ConfigError
from runner.scoring.targets import Comparison, texts, wanted
from runner.scoring.text import words

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS = {"f1": "fmeasure", "precision": "precision", "recall": "recall"}


class Rouge(Comparison):
    """ROUGE of an answer, from 0 to 1 (rouge-score, google-research; Lin 2004). The best of a list of targets counts.

    Words are those of the scorer `f1`: without case, punctuation and articles; in scripts without spaces each character is one.
    Words are not stemmed.

    Args:
        variant: ``rouge1`` and ``rouge2`` count words and pairs of words, ``rougeL`` (default) the longest common subsequence.
        measure: ``f1`` (default), ``precision`` or ``recall``.

    Raises:
        ConfigError: rouge-score is not installed.
    """

    name = "rouge"

    def __init__(
        self,
        *,
        variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL",
        measure: Literal["f1", "precision", "recall"] = "f1",
    ) -> None:
        if importlib.util.find_spec("rouge_score") is None:
            raise ConfigError("scoring 'rouge' needs the package rouge-score: pip install 'ostinato[scorers]'")
        from rouge_score.rouge_scorer import RougeScorer

        self._variant = variant
        self._field = _FIELDS[measure]
        self._scorer = RougeScorer([variant], tokenizer=_Words())

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Score the overlap."""
        options = [text for option in wanted(self.name, target) for text in texts(option)]
        return max(float(getattr(self._scorer.score(text, output)[self._variant], self._field)) for text in options)


class _Words:
    """The tokenizer that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)
