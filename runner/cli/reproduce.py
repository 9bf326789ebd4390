"""Run `ostinato reproduce`: play a run again, from its record or from a capsule, and print what differs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.options import add_json, add_run_and_overrides, add_runs_dir, run_and_overrides, shorten
from runner.errors import ConfigError
from runner.wording import numbers

if TYPE_CHECKING:
    import argparse

    from runner.reproduction.agreement import Agreement
    from runner.reproduction.checks import Check
    from runner.reproduction.replay import Replayed
    from runner.reproduction.reproduce import Reproduction

TAKES_OVERRIDES = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Play a run again and compare. RUN is a run, whose model is asked again (a new run that bypasses the cache), or a "
        "capsule from `ostinato pack`, which is played from the answers in it without a key or a network."
    )
    add_run_and_overrides(parser, "a new budget or other limits")
    add_runs_dir(parser)
    parser.add_argument("--replay", action="store_true", help="answer from the cache only: check the record, send nothing")
    parser.add_argument("--strict", action="store_true", help="refuse if anything has changed; exit 100 if an answer has")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what has changed and what asking again would take; send nothing"
    )
    parser.add_argument("--trust-code", action="store_true", help="run the scorers that are code inside the capsule")
    add_json(parser)
    parser.add_argument("--display", choices=["rich", "plain", "none"], help="how progress is shown on stderr")


def main(args: argparse.Namespace) -> int:
    """Reproduce. Return 0, 100 if answers differ that must not, 3 if not all could be compared, else as `ostinato run` does.

    Raises:
        RecordError: there is no such run, it cannot be played again, or the capsule is refused.
        ConfigError: its config was edited since, or an option does not apply.
    """
    from runner.reproduction.replay import replay
    from runner.reproduction.reproduce import preview, reproduce

    named, overrides = run_and_overrides(args)
    if (file := Path(named)).is_file() or file.suffix == ".ostinato":
        if overrides or args.strict or args.dry_run:
            raise ConfigError(
                f"{named} is a capsule, which is always compared byte for byte; only --trust-code and --json apply to it"
            )
        return _show_replayed(replay(file, trust_code=args.trust_code), args)
    if args.trust_code:
        raise ConfigError("--trust-code applies to capsules; a run's scorers are files of this machine")
    from runner.cli.display import Display

    display = Display(args.display)
    how = {"replay": args.replay, "strict": args.strict, "runs_dir": args.runs_dir, "notify": display.say}
    if args.dry_run:
        return _show(preview(named, overrides, **how), args)
    return _show(reproduce(named, overrides, **how, watch=display.watch), args)


def _show(found: Reproduction, args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps(found.to_dict()))
        return found.exit_code
    from runner.cli.display import print_table

    told = [("verdict", _verdict(found)), *((check.what, _state(check)) for check in found.checks)]
    if found.estimate:
        told.append(("asking again", found.estimate))
    if found.agreement and found.folder:
        told += [*_agreement(found.agreement), ("record", shorten(found.folder))]
    print_table(f"{found.reproduces.parent.name}/{found.reproduces.name}, played again", told)
    if found.summary and found.summary.problem:
        print(f"error: {found.summary.problem}", file=sys.stderr)
    if found.summary and found.folder and found.summary.owed and not found.replay:
        print(f"{found.summary.owed:,} rows are owed; resume with: ostinato resume {shorten(found.folder)}", file=sys.stderr)
    return found.exit_code


def _verdict(found: Reproduction) -> str:
    drift = f", though {', '.join(check.what for check in found.drifted)} changed" if found.drifted else ""
    agreement = found.agreement
    if agreement is None:
        return f"changed: {', '.join(check.what for check in found.drifted)}" if found.drifted else "nothing has changed"
    if not agreement.compared:
        return "nothing could be compared"
    if agreement.differs:
        return f"{agreement.compared - agreement.same:,} of {agreement.compared:,} samples differ"
    played = "all" if not agreement.gone else "though not all samples could be played: "
    return f"byte-identical in {played} {agreement.compared:,} samples{drift}"


def _state(check: Check) -> str:
    lines = check.lines()[1:]
    if check.state == "same":
        return f"same ({'; '.join(line.strip() for line in lines)})" if lines else "same"
    return "\n".join([check.state, *(line for line in lines)])


def _agreement(found: Agreement) -> list[tuple[str, str]]:
    told = []
    for what in ("prompts", "outputs", "statuses", "scores"):
        changed = getattr(found, what)
        told.append((what, f"{changed:,} of {found.compared:,} differ" if changed else f"{found.compared:,} the same"))
    for name, mean in found.means.items():
        before, after, moved = (_number(mean[key]) for key in ("before", "after", "difference"))
        told.append((f"score {name}", f"{before} -> {after}" + (f" ({'+' if (mean['difference'] or 0) > 0 else ''}{moved})")))
    if found.gone:
        told.append(("not played", f"{found.gone:,} samples that have an answer in the record"))
    if found.unanswered:
        told.append(("failed", f"{found.unanswered:,} samples that failed are not in the new run"))
    if found.new:
        told.append(("new", f"{found.new:,} samples that are not in the record"))
    if found.shown:
        told.append(("differences", "\n".join(found.shown)))
    return told


def _number(value: float | None) -> str:
    return numbers.mean(value, unknown="none")


def _show_replayed(replayed: Replayed, args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps(replayed.to_dict()))
        return replayed.exit_code
    from runner.cli.display import print_table

    facts = replayed.facts
    verdict = "byte-identical" if replayed.identical else "NOT as recorded; identical"
    told = [("verdict", f"{verdict}: {replayed.outputs:,} outputs, {replayed.scores:,} scores")]
    if not replayed.identical:
        told.append(("differences", f"{replayed.different:,} samples; {replayed.missing:,} could not be played"))
        told.append(("", "\n".join(replayed.shown)))
    if facts.without_answer:
        told.append(("not played", f"{len(facts.without_answer):,} samples without an answer of their own"))
    if replayed.not_scored:
        told.append(("not scored", f"{', '.join(replayed.not_scored)}: code inside the capsule; --trust-code runs it"))
    told.append(("capsule", f"sha256 {replayed.sha256}"))
    told.append(("environment", "\n".join(replayed.environment) or "as recorded"))
    print_table(f"{facts.run}, played again from its capsule", told)
    return replayed.exit_code
