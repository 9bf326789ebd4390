"""Run `ostinato resume`: resume a run or a sweep, asking only what it still owes."""

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
        "Resume a run that was interrupted: ask only the rows that it still owes. Of a sweep, play the cells that are not "
        "complete."
    )
    add_run_and_overrides(parser, "a new budget or other limits")
    add_runs_dir(parser)
    add_display(parser)


def main(args: argparse.Namespace) -> int:
    """Resume. Exit codes and errors are those of `ostinato run`."""
    from runner.cli import cells as sweep
    from runner.cli.display import Display
    from runner.experiment.run import resume
    from runner.records import SweepFolder, find_record
    from runner.sweeps.run import resume_sweep

    display = Display(args.display)
    named, overrides = run_and_overrides(args)
    record = find_record(named, args.runs_dir)
    if isinstance(record, SweepFolder):
        return sweep.report(resume_sweep(record.path, overrides, notify=display.say, watch=display.watch_sweep), args)
    return report(resume(record.path, overrides, notify=display.say, watch=display.watch), args)
