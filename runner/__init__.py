"""Ostinato's library: language-model experiments declared in YAML that can be played again exactly. Imports on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.analysis.load import load
    from runner.config.schema import RunConfig
    from runner.experiment.run import RunResult, run
    from runner.finetune.data.formats import TrainDataFormat
    from runner.finetune.jobs.future import TrainingJob
    from runner.finetune.jobs.status import TrainingStatus
    from runner.lm.history import settings
    from runner.lm.lm import LM
    from runner.providers.base import Provider
    from runner.sweeps.run import SweepResult, sweep

__version__ = "0.1.0"

_HOMES = {
    "LM": "runner.lm.lm",
    "Provider": "runner.providers.base",
    "RunConfig": "runner.config.schema",
    "RunResult": "runner.experiment.run",
    "SweepResult": "runner.sweeps.run",
    "TrainDataFormat": "runner.finetune.data.formats",
    "TrainingJob": "runner.finetune.jobs.future",
    "TrainingStatus": "runner.finetune.jobs.status",
    "load": "runner.analysis.load",
    "run": "runner.experiment.run",
    "settings": "runner.lm.history",
    "sweep": "runner.sweeps.run",
}

__all__ = [
    "LM",
    "Provider",
    "RunConfig",
    "RunResult",
    "SweepResult",
    "TrainDataFormat",
    "TrainingJob",
    "TrainingStatus",
    "__version__",
    "load",
    "run",
    "settings",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
