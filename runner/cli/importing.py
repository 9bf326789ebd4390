"""Run `ostinato import`: make records of the runs of other tools, and experiments of their configs."""

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
        "Make records of runs: .eval and .json logs of inspect_ai, samples_*.jsonl of lm-eval (results_*.json beside it), "
        "results of promptfoo (promptfoo eval -o results.json). Make experiments of configs: promptfooconfig.yaml, tasks of "
        "lm-eval, input of OpenAI's Batch API, samples of OpenAI Evals; what cannot be carried over is listed."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a file of another tool")
    parser.add_argument("--name", metavar="NAME", help="the experiment (default: the task's name in the file)")
    parser.add_argument("--id", metavar="COLUMN", help="the column with the id of a row, as doc.id (default: the file's ids)")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="DIR", help="of configs: gets conf/ and data/ (default: here)"
    )
    parser.add_argument("--force", action="store_true", help="of configs: replace files that exist")
    add_runs_dir(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Import. Return 0.

    Raises:
        DataError: a file cannot be read, or is of no format that is known.
        RecordError: a record cannot be written.
    """
    from runner.foreign.experiment import is_config
    from runner.foreign.record import import_run

    if configs := [file for file in args.files if is_config(file)]:
        _write_configs(configs, args)
    runs = [file for file in args.files if file not in configs]
    if not runs:
        return 0
    made = [one for file in runs for one in import_run(file, name=args.name, id=args.id, runs_dir=args.runs_dir)]
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


def _write_configs(files: list[Path], args: argparse.Namespace) -> None:
    from runner.foreign.experiment import import_config

    made = [one for file in files for one in import_config(file, name=args.name, folder=args.output, replace=args.force)]
    if args.json:
        print(json.dumps([{"experiment": one.name, "config": str(one.config), "left": list(map(str, one.left))} for one in made]))
        return
    for one in made:
        print(f"{shorten(one.config.absolute())}: play it with: ostinato run experiment={one.name}")
    for line in made[0].left:
        print(f"not carried over: {line}", file=sys.stderr)
