"""Run `ostinato show`: print a run, its summary and its first rows, or the table of a sweep."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runner.attachments import said
from runner.cli.options import add_json, add_run, shorten
from runner.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from runner.records import RunFolder, SweepFolder
    from runner.types import Sample, Step


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "Show a run, or the table of a sweep."
    add_run(parser)
    parser.add_argument("--rows", type=int, default=0, metavar="N", help="show the first N rows too")
    parser.add_argument("--failed", action="store_true", help="show the rows that failed (with --rows: N of them)")
    parser.add_argument("--cite", action="store_true", help="print the run for a paper's appendix, in Markdown")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Show. Return 0. Raise RecordError if there is no such run."""
    from runner.records import SweepFolder, find_record

    record = find_record(args.run, args.runs_dir)
    if isinstance(record, SweepFolder):
        return _show_sweep(record, args)
    return _show_run(record, args)


def _show_sweep(record: SweepFolder, args: argparse.Namespace) -> int:
    from runner.analysis.cells import ranked
    from runner.cli import cells as sweep

    if args.rows or args.failed:
        raise ConfigError(f"rows belong to one cell; name its run: ostinato show {shorten(record.path)}/cells/...")
    manifest, rows = record.read(), ranked(record)
    if args.json:
        print(json.dumps(sweep.as_dict(str(record.path), manifest, rows)))
    else:
        sweep.print_cells(shorten(record.path), manifest, rows)
    return 0


def _show_run(run: RunFolder, args: argparse.Namespace) -> int:
    import msgspec

    from runner.analysis.panels import told
    from runner.cli.display import print_summary

    if args.cite:
        from runner.analysis.cite import cite

        print(cite(f"{run.path.parent.name}/{run.path.name}", run.manifest(), run.summary()), end="")
        return 0
    place = {row: index for index, row in enumerate(run.manifest().get("data", {}).get("ids", []))}
    chosen = (
        [sample for sample in run.samples() if not args.failed or sample.status == "error"] if args.rows or args.failed else []
    )
    chosen.sort(key=lambda sample: (place.get(sample.id, len(place)), sample.repeat))  # in the order of the data
    samples = chosen[: args.rows or None]
    summary = run.summary()
    if args.json:
        rows = {"samples": msgspec.to_builtins(samples)} if args.rows or args.failed else {}
        print(json.dumps({"run": str(run.path), "summary": summary.to_dict() if summary else None, **rows}))
        return 0
    if summary is None:
        folder = shorten(run.path)
        print(f"{folder}: no summary yet: it is in progress or was killed; resume with: ostinato resume {folder}")
    else:
        print_summary(summary, shorten(run.path))
        for line in told(run):
            print(line)
    for sample in samples:
        print(_describe(sample))
    return 0


def _describe(sample: Sample) -> str:
    repeat = f" (repeat {sample.repeat})" if sample.repeat else ""
    scores = ", ".join(f"{name} {value:g}" for name, value in sample.scores.items())
    lines = [f"\n{sample.id}{repeat}: {sample.status}{f'; {scores}' if scores else ''}"]
    if sample.steps is None or sample.messages is not None:
        lines += [f"  {message['role']}: {said(message)}" for message in sample.asked]
    else:
        lines += [line for number, step in enumerate(sample.steps) for line in _step(number, step)]
    if sample.reasoning:
        lines.append(f"  thinking: {sample.reasoning}")
    if sample.output is not None:
        lines.append(f"  answer: {sample.output}")
    for name, one in (sample.judgements or {}).items():
        lines.append(f"  {name}: {': '.join(filter(None, (one.label, one.reason)))}")
    if sample.target is not None:
        lines.append(f"  target: {sample.target}")
    if sample.error is not None:
        lines.append(f"  error: {sample.error.code}: {sample.error.message}")
    return "\n".join(lines)


def _step(number: int, step: Step) -> list[str]:
    facts = [
        f"step {number}",
        *([f"after step {step.after}"] if step.after is not None else []),
        *([step.model] if step.model else []),
    ]
    lines = [f"  {', '.join(facts)}:", *(f"    {message['role']}: {said(message)}" for message in step.added)]
    return [*lines, f"    error: {step.error.code}: {step.error.message}"] if step.error else lines
