"""Run `ostinato ft`: find the action and its module. Fine-tuning jobs outlive the command that begins them."""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ACTIONS: dict[str, tuple[str, str]] = {
    "run": ("runner.cli.finetune.run", "train the model that a config describes, once; training continues after Ctrl-C"),
    "ls": ("runner.cli.finetune.jobs", "list the jobs"),
    "show": ("runner.cli.finetune.jobs", "show a job: its settings, its status, its losses"),
    "logs": ("runner.cli.finetune.follow", "print the log of a job; -f follows it"),
    "attach": ("runner.cli.finetune.follow", "follow a job to its end"),
    "cancel": ("runner.cli.finetune.jobs", "stop a job"),
    "rm": ("runner.cli.finetune.jobs", "delete jobs that have ended, with their models"),
}
"""Map each action to its module and its summary. The module has `configure(parser, action)` and `main(args) -> exit code`."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "Fine-tuning jobs. A job outlives the command that starts it, and is never run twice."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["actions:", *(f"  {action:<8}{summary}" for action, (_, summary) in ACTIONS.items())])
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help="see below; `ostinato ft ACTION --help` says more")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="its arguments")


def main(args: argparse.Namespace) -> int:
    """Run the action, and return its exit code."""
    target, summary = ACTIONS[args.action]
    module = importlib.import_module(target)
    parser = argparse.ArgumentParser(prog=f"ostinato ft {args.action}", description=summary)
    module.configure(parser, args.action)
    words: Sequence[str] = args.words
    # overrides and options may be mixed, as in Hydra
    code: int = module.main(parser.parse_intermixed_args(words))
    return code
