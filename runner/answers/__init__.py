"""Read what a model has said: how an answer ended, and which part of it is thinking."""

from runner.answers.endings import Ending, ending_of, is_known, warn_of_unknown
from runner.answers.thinking import parted, spoken, without_thinking

__all__ = ["Ending", "ending_of", "is_known", "parted", "spoken", "warn_of_unknown", "without_thinking"]
