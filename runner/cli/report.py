"""Run `ostinato report`: write a run or a sweep as one HTML file that needs no network."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.options import add_json, add_run, shorten

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Write the report of a run or a sweep: one HTML file with its summary, plots, errors and a browser of its samples. "
        "The file needs no network and can be mailed as it is."
    )
    add_run(parser)
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="the file to write (default: report.html in the folder)")
    parser.add_argument("--open", action="store_true", help="open it in the web browser")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Write the page and print its path. Raise RecordError if there is no such run, or the file cannot be written."""
    from runner.records import find_record
    from runner.reports import report

    folder = find_record(args.run, args.runs_dir).path
    page = report(folder, args.out)
    print(json.dumps({"run": str(folder), "report": str(page)}) if args.json else shorten(page))
    if args.open:
        webbrowser.open(page.as_uri())
    return 0
