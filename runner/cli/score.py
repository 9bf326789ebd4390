"""Run `ostinato score`: score the answers of a run again, by its own scorers or by others, without asking the model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runner.cli.options import add_json, add_run_and_overrides, add_runs_dir, run_and_overrides, shorten

if TYPE_CHECKING:
    import argparse

TAKES_OVERRIDES = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Score a run's answers again and replace its scores. Overrides (scoring=f1, scoring.pattern=...) choose other scorers. "
        "The model is not asked. Printed is what has changed."
    )
    add_run_and_overrides(parser, "overrides of the group scoring")
    add_runs_dir(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Score. Return 0.

    Raises:
        RecordError: there is no such run.
        ConfigError: the scorers cannot be built.
    """
    import msgspec

    from runner.cli.display import print_summary
    from runner.experiment.rescore import score

    named, overrides = run_and_overrides(args)
    result = score(named, overrides, runs_dir=args.runs_dir)
    if args.json:
        changes = {name: msgspec.to_builtins(change) for name, change in result.changes.items()}
        print(json.dumps({**result.summary.to_dict(), "changes": changes}))
    else:
        print_summary(result.summary, shorten(result.folder))
        for name, change in result.changes.items():
            print(f"{name}: {change}")
    return 0
