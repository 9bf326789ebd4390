"""Run `ostinato diff`: show in which keys the configs of two runs differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runner.cli.options import add_json, add_runs_dir, shorten

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Show in which keys the configs of two runs differ, and whether they read the same rows and files. For their answers and "
        "scores: ostinato compare."
    )
    parser.add_argument("a", metavar="RUN_A", help="a folder, a name, a stamp, or latest")
    parser.add_argument("b", metavar="RUN_B", help="the same")
    add_runs_dir(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Compare. Return 0, whether they differ or not. Raise RecordError if there is no such run."""
    from runner.experiment.configs import NOTHING, config_differences
    from runner.records import find_run

    a, b = (find_run(name, args.runs_dir) for name in (args.a, args.b))
    found = config_differences(a, b)
    if args.json:
        told = [
            {"key": key, **{name: one for name, one in (("a", was), ("b", now)) if one is not NOTHING}} for key, was, now in found
        ]
        print(json.dumps({"a": shorten(a.path), "b": shorten(b.path), "differences": told}))
        return 0
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"- {shorten(a.path)}", "red"))
    console.print(Text(f"+ {shorten(b.path)}", "green"))
    for key, was, now in found:
        console.print(Text(key, "bold"))
        for sign, value, style in (("-", was, "red"), ("+", now, "green")):
            if value is not NOTHING:
                console.print(Text("\n".join(f"{sign} {line}" for line in _lines(value)), style))
    if not found:
        console.print("the configs are the same")
    return 0


def _lines(value: Any) -> list[str]:
    return value.splitlines() or [""] if isinstance(value, str) else [json.dumps(value, ensure_ascii=False)]
