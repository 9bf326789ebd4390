"""Turn a row into an answer with as many requests as that takes: each of them is a step of the sample."""

from __future__ import annotations

from runner.solvers.command import Command
from runner.solvers.dspy import Dspy
from runner.solvers.lm import StepLM
from runner.solvers.modules import sources
from runner.solvers.python import Python
from runner.solvers.solved import Bounds, Solved
from runner.solvers.solver import Solver
from runner.solvers.steps import Look, Steps, Unanswered, is_of_row

__all__ = [
    "Bounds",
    "Command",
    "Dspy",
    "Look",
    "Python",
    "Solved",
    "Solver",
    "StepLM",
    "Steps",
    "Unanswered",
    "is_of_row",
    "sources",
]
