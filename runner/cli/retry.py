"""Run `ostinato retry`: ask the failed rows of a run again, in the same record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cli.options import add_display, add_run_and_overrides, add_runs_dir, run_and_overrides
from runner.cli.run import report

TAKES_OVERRIDES = True

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Ask the failed rows of a run again, and the rows that it still owes. Answered rows are not asked. A row whose retry is "
        "interrupted keeps its old line in the record."
    )
    add_run_and_overrides(parser, "a new budget or other limits")
    parser.add_argument("--only", metavar="CODES", help="only failures with these codes, for example rate_limit,timeout")
    add_runs_dir(parser)
    add_display(parser)


def main(args: argparse.Namespace) -> int:
    """Retry. Exit codes and errors are those of `ostinato run`; a code that does not exist is a ConfigError."""
    from runner.cli.display import Display
    from runner.experiment.run import retry

    display = Display(args.display)
    named, overrides = run_and_overrides(args)
    only = None if args.only is None else [code.strip() for code in args.only.split(",")]
    result = retry(named, overrides, only=only, runs_dir=args.runs_dir, notify=display.say, watch=display.watch)
    return report(result, args)
