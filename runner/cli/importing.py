"""Run `ostinato import`: make records of the runs of other tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.options import add_json, add_runs_dir, shorten

if TYPE_CHECKING:
    import argparse

    from runner.foreign.record import Imported


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Make records of runs of other tools: .eval and .json logs of inspect_ai, samples_*.jsonl of lm-eval (with the "
        "results_*.json beside it), results of promptfoo (promptfoo eval -o results.json). They are read by report, compare, "
        "score, export, show and fine-tuning."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a file of another tool")
    parser.add_argument("--name", metavar="NAME", help="the experiment (default: the task's name in the file)")
    parser.add_argument("--id", metavar="COLUMN", help="the column with the id of a row, as doc.id (default: the file's ids)")
    add_runs_dir(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Import. Return 0.

    Raises:
        DataError: a file cannot be read, or is of no format that is known.
        RecordError: a record cannot be written.
    """
    from runner.foreign.record import import_run

    made = [one for file in args.files for one in import_run(file, name=args.name, id=args.id, runs_dir=args.runs_dir)]
    if args.json:
        print(json.dumps([{"run": str(one.folder), "unread": one.unread, "summary": one.summary.to_dict()} for one in made]))
        return 0
    _show(made)
    return 0


def _show(made: list[Imported]) -> None:
    from runner.cli.display import print_summary

    for one in made:
        print_summary(one.summary, shorten(one.folder))
        for line in one.unread:
            print(f"not taken over: {line}", file=sys.stderr)
    if len(made) > 1:
        print(f"compare them: ostinato compare {' '.join(shorten(one.folder) for one in made)}", file=sys.stderr)
