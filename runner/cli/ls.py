"""`ostinato ls`: the runs there are."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from runner.cli.options import add_runs_dir, shorten
from runner.errors import RecordError

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "List runs, newest last."
    add_runs_dir(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """List. Returns 0."""
    from runner.records import list_runs

    lines: list[dict[str, Any]] = []
    for run in list_runs(args.runs_dir):
        try:
            summary, manifest = run.summary(), run.manifest()
        except RecordError as error:  # one broken run does not hide the others
            summary, manifest = None, {"status": "unreadable"}
            print(f"warning: {error}", file=sys.stderr)
        lines.append(
            {
                "run": shorten(run.path),
                "status": manifest.get("status"),
                "model": summary.model if summary else None,
                "rows": summary.rows if summary else manifest.get("data", {}).get("rows"),
                "ok": summary.ok if summary else None,
                "scores": {name: score.mean for name, score in summary.scores.items()} if summary else {},
            }
        )
    if args.json:
        print(json.dumps({"runs": lines}))
        return 0
    for line in lines:
        scores = "  ".join(f"{name} {mean:.3f}" for name, mean in line["scores"].items() if mean is not None)
        ok = "-" if line["ok"] is None else line["ok"]
        rows = "-" if line["rows"] is None else line["rows"]
        print(f"{line['run']}  {line['status']}  {line['model'] or '-'}  {ok}/{rows}  {scores}".rstrip())
    return 0
