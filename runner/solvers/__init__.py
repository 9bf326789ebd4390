"""Turn a row into an answer with as many requests as that takes: each of them is a step of the sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.system.first_use import on_first_use

if TYPE_CHECKING:
    from runner.solvers.command import Command
    from runner.solvers.dspy import Dspy
    from runner.solvers.lm import StepLM
    from runner.solvers.modules import sources
    from runner.solvers.plugin import Plugin
    from runner.solvers.python import Python
    from runner.solvers.solved import Bounds, Solved
    from runner.solvers.solver import Solver
    from runner.solvers.steps import Look, Steps, Unanswered

_HOMES = {
    "Bounds": "solved",
    "Command": "command",
    "Dspy": "dspy",
    "Look": "steps",
    "Plugin": "plugin",
    "Python": "python",
    "Solved": "solved",
    "Solver": "solver",
    "sources": "modules",
    "StepLM": "lm",
    "Steps": "steps",
    "Unanswered": "steps",
}

__all__ = [
    "Bounds",
    "Command",
    "Dspy",
    "Look",
    "Plugin",
    "Python",
    "Solved",
    "Solver",
    "StepLM",
    "Steps",
    "Unanswered",
    "sources",
]

__getattr__ = on_first_use(__name__, _HOMES)
