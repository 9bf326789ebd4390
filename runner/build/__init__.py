"""Turn a config into the objects that run it. The only room where config meets implementation.

Each function matches on `kind` once. Secrets are read from the environment here.
"""

from runner.build.against import is_file_of_answers, other_answers
from runner.build.model import access, budget, cache, limiter, lm, pinned, remarks
from runner.build.named import each_model, named, scoring_budget, scoring_models
from runner.build.prompt import adapter, conversation
from runner.build.solver import solver
from runner.build.task import counting, dataset, name, pass_at, scorers, scoring_remarks
from runner.build.training import finetuning

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
    "pass_at",
    "pinned",
    "remarks",
    "scorers",
    "scoring_budget",
    "scoring_models",
    "scoring_remarks",
    "solver",
]
