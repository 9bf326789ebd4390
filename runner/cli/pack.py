"""Run `ostinato pack`: put a run into one file that plays again on another machine, without a key or a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.options import add_json, add_run

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Pack a run (config, rows, files, answers, record) into a capsule that `ostinato reproduce` plays anywhere."
    )
    add_run(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the capsule (default: <experiment>-<stamp>.ostinato in this folder)"
    )
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Pack. Return 0.

    Raises:
        RecordError: there is no such run, or it cannot be packed.
        ConfigError, DataError: its config or data is no longer usable.
    """
    from runner.cli.display import print_table
    from runner.reproduction.pack import pack

    packed = pack(args.run, args.output, runs_dir=args.runs_dir)
    if args.json:
        print(json.dumps(packed.to_dict()))
        return 0
    facts = packed.facts
    told = [("run", facts.run), ("answers", f"{facts.answers:,} of {facts.rows:,} samples")]
    if facts.from_record:
        told.append(("", f"{facts.from_record:,} of them from the record: they are no longer in the cache"))
    if facts.without_answer:
        told.append(("without", f"{len(facts.without_answer):,} samples have no answer that can be played again"))
    if facts.code:
        told.append(("code", f"{', '.join(facts.code)}: runs elsewhere with --trust-code only"))
    told += [("size", f"{packed.bytes:,} bytes"), ("sha256", packed.sha256)]
    print_table(str(packed.file), told, hints=[(f"ostinato reproduce {packed.file}", "plays it again: no key, no network")])
    return 0
