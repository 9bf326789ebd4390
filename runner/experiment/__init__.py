"""One experiment, played and recorded. Plain Python, usable in a notebook; knows nothing of Prefect."""

from runner.experiment.estimate import Forecast, forecast
from runner.experiment.pack import Packed, pack
from runner.experiment.play import FAILURES, ORCHESTRATORS, RunResult, play_to_end, resume, retry, run
from runner.experiment.replay import Replayed, replay
from runner.experiment.reproduce import Reproduction, reproduce
from runner.experiment.rescore import rescore
from runner.experiment.stages import Experiment, attach, config_hash

__all__ = [
    "FAILURES",
    "ORCHESTRATORS",
    "Experiment",
    "Forecast",
    "Packed",
    "Replayed",
    "Reproduction",
    "RunResult",
    "attach",
    "config_hash",
    "forecast",
    "pack",
    "play_to_end",
    "replay",
    "reproduce",
    "rescore",
    "resume",
    "retry",
    "run",
]
