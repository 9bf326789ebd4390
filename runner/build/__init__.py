"""Turn a config into the objects that run it. The only room where config meets implementation.

Each function matches on `kind` once. Secrets are read from the environment here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.build.named import each_model, named, scoring_budget, scoring_models  # modules of the names that they define
from runner.build.packages import packages
from runner.build.solver import solver
from runner.system.first_use import on_first_use

if TYPE_CHECKING:
    from runner.build.against import is_file_of_answers, other_answers
    from runner.build.model import access, budget, cache, limiter, lm, pinned, remarks
    from runner.build.prompt import adapter, conversation
    from runner.build.task import counting, dataset, name, pass_at, scorers, scoring_remarks
    from runner.build.training import finetuning

_HOMES = {
    "access": "model",
    "adapter": "prompt",
    "budget": "model",
    "cache": "model",
    "conversation": "prompt",
    "counting": "task",
    "dataset": "task",
    "finetuning": "training",
    "is_file_of_answers": "against",
    "limiter": "model",
    "lm": "model",
    "name": "task",
    "other_answers": "against",
    "pass_at": "task",
    "pinned": "model",
    "remarks": "model",
    "scorers": "task",
    "scoring_remarks": "task",
}

__all__ = [
    "access",
    "adapter",
    "budget",
    "cache",
    "conversation",
    "counting",
    "dataset",
    "each_model",
    "finetuning",
    "is_file_of_answers",
    "limiter",
    "lm",
    "name",
    "named",
    "other_answers",
    "packages",
    "pass_at",
    "pinned",
    "remarks",
    "scorers",
    "scoring_budget",
    "scoring_models",
    "scoring_remarks",
    "solver",
]

__getattr__ = on_first_use(__name__, _HOMES)
