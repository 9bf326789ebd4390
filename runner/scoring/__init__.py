"""Scoring: how good one answer is (a scorer), and the summary of a run's scores (mean, standard error, n)."""

from runner.scoring.choice import Choice, single_letters
from runner.scoring.math import Math
from runner.scoring.numeric import Numeric
from runner.scoring.python import Python
from runner.scoring.structured import JsonMatch
from runner.scoring.summary import RowMean, summarise, summarise_by_row
from runner.scoring.targets import Scorer
from runner.scoring.text import F1, Contains, Exact, Regex

__all__ = [
    "F1",
    "Choice",
    "Contains",
    "Exact",
    "JsonMatch",
    "Math",
    "Numeric",
    "Python",
    "Regex",
    "RowMean",
    "Scorer",
    "single_letters",
    "summarise",
    "summarise_by_row",
]
