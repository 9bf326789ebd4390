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


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "List runs and sweeps, newest last. The runs of a sweep's cells are in its folder."
    add_runs_dir(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """List. Return 0."""
    from runner.records import SweepFolder, list_records

    runs: list[dict[str, Any]] = []
    sweeps: list[dict[str, Any]] = []
    for record in list_records(args.runs_dir):
        if isinstance(record, SweepFolder):
            facts = _sweep(record)
            sweeps.append(facts)
            line = _sweep_line(facts)
        else:
            facts = _run(record)
            runs.append(facts)
            line = _run_line(facts)
        if not args.json:
            print(line)
    if args.json:
        print(json.dumps({"runs": runs, "sweeps": sweeps}))
    return 0


def _run(run: RunFolder) -> dict[str, Any]:
    try:
        summary, manifest = run.summary(), run.manifest()
    except RecordError as error:  # one broken run does not hide the others
        summary, manifest = None, {"status": "unreadable"}
        print(f"warning: {error}", file=sys.stderr)
    return {
        "run": shorten(run.path),
        "status": manifest.get("status"),
        "model": summary.model if summary else None,
        "rows": summary.rows if summary else manifest.get("data", {}).get("rows"),
        "ok": summary.ok if summary else None,
        "scores": {name: score.mean for name, score in summary.scores.items()} if summary else {},
    }


def _run_line(facts: dict[str, Any]) -> str:
    scores = "  ".join(f"{name} {numbers.mean(mean)}" for name, mean in facts["scores"].items() if mean is not None)
    ok = "-" if facts["ok"] is None else facts["ok"]
    rows = "-" if facts["rows"] is None else facts["rows"]
    return f"{facts['run']}  {facts['status']}  {facts['model'] or '-'}  {ok}/{rows}  {scores}".rstrip()


def _sweep(sweep: SweepFolder) -> dict[str, Any]:
    facts: dict[str, Any] = {"sweep": shorten(sweep.path)}
    try:
        manifest = sweep.read()
    except RecordError as error:
        print(f"warning: {error}", file=sys.stderr)
        return facts | {"status": "unreadable", "keys": [], "cells": None, "complete": None}
    complete = sum(cell.status == "complete" for cell in manifest.cells.values())
    return facts | {"status": manifest.status, "keys": manifest.keys, "cells": len(manifest.cells), "complete": complete}


def _sweep_line(facts: dict[str, Any]) -> str:
    cells = "-" if facts["cells"] is None else f"{facts['complete']}/{facts['cells']}"
    return f"{facts['sweep']}  {facts['status']}  sweep over {', '.join(facts['keys']) or '-'}  {cells} cells"
