"""The scorers chrf and bleu: overlap of characters and of words, as translations are scored. By sacrebleu."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import ConfigError
from runner.scoring.normal import normal
from runner.scoring.targets import Comparison, texts, wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

_PERCENT = 100.0


class Chrf(Comparison):
    """Overlap of character n-grams with the target, from 0 to 1 (sacrebleu's chrF over 100; Popović 2015).

    It needs no words, so it suits short answers and every script. The best of a list of targets counts; an empty answer is 0.0.

    Args:
        word_order: 0 (default) is chrF; 2 also counts words, which is chrF++.

    Raises:
        ConfigError: sacrebleu is not installed.
    """

    name = "chrf"

    def __init__(self, *, word_order: int = 0) -> None:
        _require(self.name)
        from sacrebleu.metrics.chrf import CHRF

        self._metric = CHRF(word_order=word_order)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Score the overlap."""
        return _score(self._metric, output, _references(self.name, target))


class Bleu(Comparison):
    """BLEU of one answer, from 0 to 1 (sacrebleu's sentence BLEU over 100, effective order; Papineni et al. 2002, Post 2018).

    The mean over rows is not the corpus BLEU of papers on translation. A list of targets are references of one sentence; an empty
    answer is 0.0.

    Args:
        tokenize: how text becomes words: ``13a`` (default), ``intl``, ``char``, ``zh`` for Chinese, or ``none``.

    Raises:
        ConfigError: sacrebleu is not installed.
    """

    name = "bleu"

    def __init__(self, *, tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a") -> None:
        _require(self.name)
        from sacrebleu.metrics.bleu import BLEU

        self._metric = BLEU(effective_order=True, tokenize=tokenize)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Score the overlap."""
        return _score(self._metric, output, _references(self.name, target))


def _require(name: str) -> None:
    if importlib.util.find_spec("sacrebleu") is None:
        raise ConfigError(f"scoring '{name}' needs the package sacrebleu: pip install 'ostinato[scorers]'")


def _references(name: str, target: Any) -> list[str]:
    return [normal(texts(option)[0]) for option in wanted(name, target)]


def _score(metric: Any, output: str, references: list[str]) -> float:
    if not output.strip():
        return 0.0
    return min(1.0, float(metric.sentence_score(normal(output), references).score) / _PERCENT)
