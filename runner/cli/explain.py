"""Run `ostinato explain`: say what a key of the config means, and which runs set it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runner.cli.options import add_json, add_runs_dir, shorten

if TYPE_CHECKING:
    import argparse

SHOWN = 10
"""Runs that are listed, the newest last."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "Say what a key means, which values it takes, its unit and its default, and which runs set it."
    parser.add_argument("key", metavar="KEY", help="such as sampling.temperature, limits.timeout_s or data")
    add_runs_dir(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Explain. Return 0. Raise ConfigError if there is no such key."""
    import msgspec

    from runner.config.explained import explained
    from runner.experiment.configs import runs_that_set

    found = explained(args.key)
    runs = runs_that_set(args.key, args.runs_dir)
    if args.json:
        print(
            json.dumps({**msgspec.to_builtins(found), "runs": [{"run": shorten(path), "value": value} for path, value in runs]})
        )
        return 0
    print(found.key)
    for kind in found.kinds:
        print(f"  {f'{kind.kind}: ' if kind.kind else ''}{kind.means or 'conf does not say what it means'}")
        if kind.values != "a mapping":
            print(f"    values   {kind.values}")
        if kind.default is not None:
            print(f"    default  {kind.default}")
    for name, text in (("unit", found.unit), ("role", found.role), ("keys", ", ".join(found.keys))):
        if text:
            print(f"  {name}  {text}")
    if runs:
        print(f"  set by {len(runs):,} {'run' if len(runs) == 1 else 'runs'} in {args.runs_dir}:")
        for path, value in runs[-SHOWN:]:
            print(f"    {shorten(path)}  {_short(value)}")
    return 0


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:76]} ..."  # noqa: PLR2004
