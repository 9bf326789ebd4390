"""Scoring: how good one answer is (a scorer), and the summary of a run's scores (mean, standard error, n)."""

from runner.scoring.calls import Calls
from runner.scoring.choice import Choice, single_letters
from runner.scoring.combined import Combined, Not
from runner.scoring.edit import Edit
from runner.scoring.judge import Judge
from runner.scoring.math import Math
from runner.scoring.measure import Measure
from runner.scoring.numeric import Numeric
from runner.scoring.pairwise import Pairwise
from runner.scoring.panel import Panel
from runner.scoring.python import Python
from runner.scoring.rouge import Rouge
from runner.scoring.structured import JsonMatch, JsonSchema
from runner.scoring.summary import RowMean, summarise, summarise_by_row
from runner.scoring.targets import Scorer
from runner.scoring.text import F1, Contains, Exact, Regex
from runner.scoring.translation import Bleu, Chrf

__all__ = [
    "F1",
    "Bleu",
    "Calls",
    "Choice",
    "Chrf",
    "Combined",
    "Contains",
    "Edit",
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
    "Python",
    "Regex",
    "Rouge",
    "RowMean",
    "Scorer",
    "single_letters",
    "summarise",
    "summarise_by_row",
]
