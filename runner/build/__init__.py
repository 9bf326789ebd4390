"""Turn a config into the objects that run it. The only room where config meets implementation.

Each function matches on `kind` once. Secrets are read from the environment here.
"""

from runner.build.model import access, budget, cache, limiter, lm, pinned, remarks
from runner.build.task import adapter, counting, dataset, name, pass_at, scorers, scoring_remarks
from runner.build.training import finetuning

__all__ = [
    "access",
    "adapter",
    "budget",
    "cache",
    "counting",
    "dataset",
    "finetuning",
    "limiter",
    "lm",
    "name",
    "pass_at",
    "pinned",
    "remarks",
    "scorers",
    "scoring_remarks",
]
