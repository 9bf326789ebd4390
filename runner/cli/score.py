"""Run `ostinato score`: score the answers of a run or a sweep again, by its own scorers or by others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runner.cli.options import add_json, add_run_and_overrides, add_runs_dir, run_and_overrides, shorten

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from runner.records import SweepFolder

TAKES_OVERRIDES = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Score the answers of a run, or of all cells of a sweep, again and replace its scores. Overrides (scoring=f1, "
        "scoring.pattern=...) choose other scorers. The model is not asked; judges are, for what the cache lacks. Printed is "
        "what has changed."
    )
    add_run_and_overrides(parser, "overrides of the groups scoring and expect")
    parser.add_argument("--like", metavar="RUN", help="use the scorers of another run")
    parser.add_argument("--refresh", action="store_true", help="have judges judge again what the cache has their judgements of")
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
    if (sweep := _sweep(named, args.runs_dir)) is not None:
        return _score_sweep(sweep, overrides, as_json=args.json)
    result = score(named, overrides, runs_dir=args.runs_dir, like=args.like, refresh=args.refresh)
    if args.json:
        changes = {name: msgspec.to_builtins(change) for name, change in result.changes.items()}
        print(json.dumps({**result.summary.to_dict(), "changes": changes}))
    else:
        print_summary(result.summary, shorten(result.folder))
        for name, change in result.changes.items():
            print(f"{name}: {change}")
    return 0


def _sweep(named: str, runs_dir: Path) -> SweepFolder | None:
    """Return the sweep that is named; None for a run, which goes first (``latest`` is the latest run)."""
    from runner.errors import RecordError
    from runner.records import SweepFolder, find_record, find_run

    try:
        find_run(named, runs_dir)
    except RecordError:
        found = find_record(named, runs_dir)
        return found if isinstance(found, SweepFolder) else None
    return None


def _score_sweep(sweep: SweepFolder, overrides: list[str], *, as_json: bool) -> int:
    """Score the cells of a sweep, and print its table. Return 0."""
    from runner.analysis.cells import ranked
    from runner.cli import cells
    from runner.sweeps.rescore import score_sweep

    found = score_sweep(sweep, overrides)
    manifest, rows = sweep.read(), ranked(sweep)
    if as_json:
        print(json.dumps(cells.as_dict(str(sweep.path), manifest, rows)))
        return 0
    cells.print_cells(shorten(sweep.path), manifest, rows)
    for row in rows:
        for name, change in found[row["cell"]].changes.items() if row["cell"] in found else ():
            print(f"{', '.join(f'{key}={row[key]}' for key in manifest.keys)}: {name}: {change}")
    return 0
