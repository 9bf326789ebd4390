"""`ostinato reproduce`: play a run again, from its record or from a capsule, and say what came out otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.options import add_runs_dir
from runner.errors import RecordError

if TYPE_CHECKING:
    import argparse

    from runner.experiment.replay import Replayed


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "Play a run again and compare: a run by asking its model anew, a capsule from the answers in it."
    parser.add_argument(
        "run", nargs="?", default="latest", metavar="RUN|CAPSULE", help="a run (default: latest), or a packed one"
    )
    parser.add_argument("--trust-code", action="store_true", help="run the scorers that are code inside the capsule")
    add_runs_dir(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Reproduce. Returns 0 as recorded, 100 not so.

    Raises:
        RecordError: there is no such run, or the capsule is refused.
    """
    from runner.experiment.replay import replay

    file = Path(args.run)
    if not file.is_file():
        raise RecordError(f"{file}: no such capsule")
    return _told(replay(file, trust_code=args.trust_code), args)


def _told(replayed: Replayed, args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps(replayed.to_dict()))
        return replayed.exit_code
    from runner.cli.display import print_table

    facts = replayed.facts
    verdict = f"{replayed.outputs:,} outputs, {replayed.scores:,} scores"
    told = [("byte-identical", verdict)]
    if not replayed.identical:
        told.append(("different", f"{replayed.different:,} samples; {replayed.missing:,} could not be played"))
    if facts.without_answer:
        told.append(("not played", f"{len(facts.without_answer):,} samples that have no answer on record"))
    if replayed.not_scored:
        told.append(("not scored", f"{', '.join(replayed.not_scored)}: code inside the capsule; --trust-code runs it"))
    told += [(" ", line) for line in replayed.shown]
    told.append(("capsule", f"sha256 {replayed.sha256}"))
    title = "byte-identical" if replayed.identical else "NOT as recorded"
    print_table(f"{facts.run}: {title}", told)
    return replayed.exit_code
