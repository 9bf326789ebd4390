"""Scoring: how good one answer is (a scorer), and the summary of a run's scores (mean, standard error, n).

A scorer's module is imported when it is used: each compiles patterns of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.system.first_use import on_first_use

if TYPE_CHECKING:
    from runner.scoring.calls import Calls
    from runner.scoring.choice import Choice, single_letters
    from runner.scoring.combined import Combined, Not
    from runner.scoring.edit import Edit
    from runner.scoring.embedding import Embedding
    from runner.scoring.judge import Judge
    from runner.scoring.math import Math
    from runner.scoring.measure import Measure
    from runner.scoring.numeric import Numeric
    from runner.scoring.pairwise import Pairwise
    from runner.scoring.panel import Panel
    from runner.scoring.plugins import Plugin
    from runner.scoring.python import Python
    from runner.scoring.rouge import Rouge
    from runner.scoring.structured import JsonMatch, JsonSchema
    from runner.scoring.summary import RowMean, summarise, summarise_by_row
    from runner.scoring.targets import Scorer
    from runner.scoring.text import F1, Contains, Exact, Regex
    from runner.scoring.translation import Bleu, Chrf

_HOMES = {
    "Calls": "calls",
    "Choice": "choice",
    "single_letters": "choice",
    "Combined": "combined",
    "Not": "combined",
    "Edit": "edit",
    "Embedding": "embedding",
    "Judge": "judge",
    "Math": "math",
    "Measure": "measure",
    "Numeric": "numeric",
    "Pairwise": "pairwise",
    "Panel": "panel",
    "Plugin": "plugins",
    "Python": "python",
    "Rouge": "rouge",
    "JsonMatch": "structured",
    "JsonSchema": "structured",
    "RowMean": "summary",
    "summarise": "summary",
    "summarise_by_row": "summary",
    "Scorer": "targets",
    "F1": "text",
    "Contains": "text",
    "Exact": "text",
    "Regex": "text",
    "Bleu": "translation",
    "Chrf": "translation",
}

__all__ = [
    "F1",
    "Bleu",
    "Calls",
    "Choice",
    "Chrf",
    "Combined",
    "Contains",
    "Edit",
    "Embedding",
    "Exact",
    "JsonMatch",
    "JsonSchema",
    "Judge",
    "Math",
    "Measure",
    "Not",
    "Numeric",
    "Pairwise",
    "Panel",
    "Plugin",
    "Python",
    "Regex",
    "Rouge",
    "RowMean",
    "Scorer",
    "single_letters",
    "summarise",
    "summarise_by_row",
]


__getattr__ = on_first_use(__name__, _HOMES)
