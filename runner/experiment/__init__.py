"""One experiment, or a sweep over many, played and recorded. Plain Python, usable in a notebook; knows nothing of Prefect."""

from runner.experiment.estimate import Forecast, forecast
from runner.experiment.play import FAILURES, ORCHESTRATORS, RunResult, play_to_end, resume, retry, run
from runner.experiment.reproduction.pack import Packed, pack
from runner.experiment.reproduction.replay import Replayed, replay
from runner.experiment.reproduction.reproduce import Reproduction, reproduce
from runner.experiment.rescore import rescore
from runner.experiment.stages import Experiment, attach, config_hash
from runner.experiment.sweeps.outlook import Outlook, outlook
from runner.experiment.sweeps.plan import Plan
from runner.experiment.sweeps.play import SweepResult, resume_sweep, sweep, sweep_to_end
from runner.experiment.sweeps.sweep import Sweep, attach_sweep
from runner.experiment.trained import foreseen, train_first

__all__ = [
    "FAILURES",
    "ORCHESTRATORS",
    "Experiment",
    "Forecast",
    "Outlook",
    "Packed",
    "Plan",
    "Replayed",
    "Reproduction",
    "RunResult",
    "Sweep",
    "SweepResult",
    "attach",
    "attach_sweep",
    "config_hash",
    "forecast",
    "foreseen",
    "outlook",
    "pack",
    "play_to_end",
    "replay",
    "reproduce",
    "rescore",
    "resume",
    "resume_sweep",
    "retry",
    "run",
    "sweep",
    "sweep_to_end",
    "train_first",
]
