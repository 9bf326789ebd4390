"""Run `ostinato ls`: list runs and sweeps."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from runner.cli.options import add_json, add_runs_dir, shorten
from runner.errors import RecordError
from runner.wording import numbers

if TYPE_CHECKING:
    import argparse

    from runner.records import RunFolder, SweepFolder

TAKES_OVERRIDES = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    from runner.cli.filters import KEYS

    parser.description = "List runs and sweeps, newest last. The runs of a sweep's cells are in its folder."
    parser.add_argument(
        "filters",
        nargs="*",
        metavar="key=value",
        help=f"only those with {', '.join(KEYS)}: model=gpt-*, status=failed,interrupted, tag=baseline, since=2d or a date",
    )
    add_runs_dir(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """List. Return 0. Raise ConfigError for a filter that does not exist."""
    from runner.cli.filters import Filters
    from runner.records import SweepFolder, list_records

    wanted = Filters(args.filters)
    runs: list[dict[str, Any]] = []
    sweeps: list[dict[str, Any]] = []
    for record in list_records(args.runs_dir):
        if not wanted.named(record.path):
            continue
        is_sweep = isinstance(record, SweepFolder)
        facts = _sweep(record) if isinstance(record, SweepFolder) else _run(record)
        if not wanted.match(facts):
            continue
        (sweeps if is_sweep else runs).append(facts)
        if not args.json:
            print(_sweep_line(facts) if is_sweep else _run_line(facts))
    if args.json:
        print(json.dumps({"runs": runs, "sweeps": sweeps}))
    return 0


def _run(run: RunFolder) -> dict[str, Any]:
    from runner.records.listing import Glance, glance

    try:
        seen = glance(run)
    except RecordError as error:  # one broken run does not hide the others
        seen = Glance("unreadable")
        print(f"warning: {error}", file=sys.stderr)
    return {
        "run": shorten(run.path),
        "status": seen.status,
        "model": seen.model,
        "rows": seen.rows,
        "ok": seen.ok,
        "scores": seen.scores,
        "tags": seen.tags,
        "started_at": seen.started_at,
    }


def _run_line(facts: dict[str, Any]) -> str:
    scores = "  ".join(f"{name} {numbers.mean(mean)}" for name, mean in facts["scores"].items() if mean is not None)
    ok = "-" if facts["ok"] is None else facts["ok"]
    rows = "-" if facts["rows"] is None else facts["rows"]
    return f"{facts['run']}  {facts['status']}  {facts['model'] or '-'}  {ok}/{rows}  {scores}{_tags(facts)}".rstrip()


def _sweep(sweep: SweepFolder) -> dict[str, Any]:
    facts: dict[str, Any] = {"sweep": shorten(sweep.path)}
    try:
        manifest = sweep.read()
    except RecordError as error:
        print(f"warning: {error}", file=sys.stderr)
        return facts | {"status": "unreadable", "keys": [], "cells": None, "complete": None, "tags": []}
    complete = sum(cell.status == "complete" for cell in manifest.cells.values())
    return facts | {
        "status": manifest.status,
        "keys": manifest.keys,
        "cells": len(manifest.cells),
        "complete": complete,
        "tags": manifest.tags,
    }


def _sweep_line(facts: dict[str, Any]) -> str:
    cells = "-" if facts["cells"] is None else f"{facts['complete']}/{facts['cells']}"
    return f"{facts['sweep']}  {facts['status']}  sweep over {', '.join(facts['keys']) or '-'}  {cells} cells{_tags(facts)}"


def _tags(facts: dict[str, Any]) -> str:
    return "".join(f"  #{tag}" for tag in facts["tags"])
