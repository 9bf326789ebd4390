"""One experiment, played and recorded. Plain Python, usable in a notebook; knows nothing of Prefect."""

from runner.experiment.play import ORCHESTRATORS, RunResult, play_to_end, resume, run
from runner.experiment.rescore import rescore
from runner.experiment.stages import Experiment, attach, config_hash

__all__ = ["ORCHESTRATORS", "Experiment", "RunResult", "attach", "config_hash", "play_to_end", "rescore", "resume", "run"]
