"""Run language-model experiments that are declared in YAML and can be played again exactly. Names are imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from runner import errors

if TYPE_CHECKING:
    from runner.analysis.compare import Comparison, compare, compare_all
    from runner.analysis.load import Run, Sweep, load
    from runner.config.schema import RunConfig
    from runner.experiment.rescore import score
    from runner.experiment.run import RunResult, resume, retry, run
    from runner.finetune.data.formats import TrainDataFormat
    from runner.finetune.jobs.future import TrainingJob
    from runner.finetune.jobs.status import TrainingStatus
    from runner.foreign.record import Imported, import_run
    from runner.lm.history import settings
    from runner.lm.lm import LM
    from runner.pipelines.run import PipelineResult, pipeline
    from runner.providers.base import Provider
    from runner.records.summary import Summary
    from runner.reports.write import report
    from runner.reproduction.pack import Packed, pack
    from runner.reproduction.replay import Replayed, replay
    from runner.reproduction.reproduce import Reproduction, reproduce
    from runner.sweeps.run import SweepResult, resume_sweep, sweep
    from runner.types import Sample, Score

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "runner.analysis.compare",
    "Imported": "runner.foreign.record",
    "LM": "runner.lm.lm",
    "Packed": "runner.reproduction.pack",
    "PipelineResult": "runner.pipelines.run",
    "Provider": "runner.providers.base",
    "Replayed": "runner.reproduction.replay",
    "Reproduction": "runner.reproduction.reproduce",
    "Run": "runner.analysis.load",
    "RunConfig": "runner.config.schema",
    "RunResult": "runner.experiment.run",
    "Sample": "runner.types",
    "Score": "runner.types",
    "Summary": "runner.records.summary",
    "Sweep": "runner.analysis.load",
    "SweepResult": "runner.sweeps.run",
    "TrainDataFormat": "runner.finetune.data.formats",
    "TrainingJob": "runner.finetune.jobs.future",
    "TrainingStatus": "runner.finetune.jobs.status",
    "compare": "runner.analysis.compare",
    "compare_all": "runner.analysis.compare",
    "import_run": "runner.foreign.record",
    "load": "runner.analysis.load",
    "pack": "runner.reproduction.pack",
    "pipeline": "runner.pipelines.run",
    "replay": "runner.reproduction.replay",
    "report": "runner.reports.write",
    "reproduce": "runner.reproduction.reproduce",
    "resume": "runner.experiment.run",
    "resume_sweep": "runner.sweeps.run",
    "retry": "runner.experiment.run",
    "run": "runner.experiment.run",
    "score": "runner.experiment.rescore",
    "settings": "runner.lm.history",
    "sweep": "runner.sweeps.run",
}
"""The module of each public name."""

__all__ = [
    "LM",
    "Comparison",
    "Imported",
    "Packed",
    "PipelineResult",
    "Provider",
    "Replayed",
    "Reproduction",
    "Run",
    "RunConfig",
    "RunResult",
    "Sample",
    "Score",
    "Summary",
    "Sweep",
    "SweepResult",
    "TrainDataFormat",
    "TrainingJob",
    "TrainingStatus",
    "__version__",
    "compare",
    "compare_all",
    "errors",
    "import_run",
    "load",
    "pack",
    "pipeline",
    "replay",
    "report",
    "reproduce",
    "resume",
    "resume_sweep",
    "retry",
    "run",
    "score",
    "settings",
    "sweep",
]

if not TYPE_CHECKING:  # a type checker that saw it would take any name for a public one

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'runner' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
