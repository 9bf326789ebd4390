"""Run `ostinato labels`: draw answers of a run to be labelled by people, or take in the labels that they have given."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.options import add_run, count, shorten
from runner.errors import ConfigError, DataError, RecordError
from runner.wording import numbers

if TYPE_CHECKING:
    import argparse

    from runner.analysis.load import Run
    from runner.records.labels import Label
    from runner.stats.agreement import Agreement


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Draw answers of a run to be labelled: a CSV file with an empty column `label` goes to stdout. With --import, put the "
        "labels of such a file beside the record. Summary and report of the run then have the corrected score as well."
    )
    add_run(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--sample", type=count, metavar="N", help="draw N answers that have no label yet")
    told = "take in the labels of a CSV file (conf:... is one that is shipped)"
    what.add_argument("--import", dest="file", type=Path, metavar="FILE", help=told)
    parser.add_argument("--score", metavar="NAME", help="the score that is to be checked (default: the primary one)")
    parser.add_argument(
        "--by-verdict",
        action="store_true",
        help="draw from each value of the score, in the shares that make the corrected interval shortest (default: at random)",
    )
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="the seed of the draw (default: 0)")
    parser.add_argument(
        "--fill", metavar="NAME", help="fill in labels from another score of the run, such as one by known targets; they say so"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file to write (default: stdout)")
    parser.add_argument("--who", metavar="NAME", help="who has labelled the rows whose column `who` is empty")


def main(args: argparse.Namespace) -> int:
    """Draw, or import. Return 0.

    Raises:
        ConfigError: the record is a sweep, or it has no score.
        RecordError, DataError: the record or the file cannot be used.
    """
    run = run_named(args.run, args.runs_dir)
    if args.sample is not None:
        return _draw(run, args)
    from runner.system.paths import in_conf

    return _import(run, Path(in_conf(str(args.file))), args.who)


def run_named(name: str, runs_dir: Path) -> Run:
    """Return the run that is named. Raise ConfigError for a sweep."""
    from runner.analysis.load import Sweep, load

    found = load(name, runs_dir=runs_dir)
    if isinstance(found, Sweep):
        raise ConfigError(f"{found.name} is a sweep: name one of its cells, {found.folder / 'cells'}/...")
    return found


def score_named(run: Run, name: str | None) -> str:
    """Return the score that is named, or the primary one. Raise ConfigError if the run does not have it."""
    from runner.wording.suggest import suggest

    known = list(run.summary.scores) if run.summary else []
    if not known:
        raise ConfigError(f"{run.name} has no score; `ostinato score {run.folder} scoring=...` gives its answers one")
    if name is not None and name not in known:
        raise ConfigError(f"{run.name} has no score '{name}'{suggest(name, known) or ';'} there is {', '.join(known)}")
    return name or known[0]


def _draw(run: Run, args: argparse.Namespace) -> int:
    from runner.analysis.delimited import csv_lines, in_columns
    from runner.analysis.labels import allowed, draw, filled, scores_of, told
    from runner.records.labels import read_labels

    score = score_named(run, args.score)
    rows = draw(run, score, args.sample, by_verdict=args.by_verdict, seed=args.seed, known=read_labels(run.folder))
    if args.fill:
        rows = filled(rows, run, args.fill)
    content = "".join(csv_lines(in_columns(rows), exact=False))
    if args.output is None:
        sys.stdout.write(content)
    else:
        _write(args.output, content)
    wanted = told(allowed(run, score, scores_of(run, score).values()))
    what = "labels filled in" if args.fill else f"fill in the column `label` ({wanted})"
    print(
        f"{numbers.count(len(rows), 'answer')} of {run.name}, for the score {score}: {what}, then: "
        f"ostinato labels {shorten(run.folder)} --import {args.output or 'FILE'}",
        file=sys.stderr,
    )
    return 0


def _write(file: Path, content: str) -> None:
    """Write a new file whole. Raise ConfigError if it is there already, perhaps with labels, and RecordError."""
    from runner.system import files

    if file.exists():
        raise ConfigError(f"{file} is there already, perhaps with labels: give another name")
    try:
        files.write(file, content)
    except OSError as error:
        raise RecordError(f"{file} cannot be written: {error.strerror}") from None


def _import(run: Run, file: Path, who: str | None) -> int:
    from runner.analysis.labels import checked
    from runner.experiment.calibrated import label_run
    from runner.system.clock import now

    labels = checked(_rows(file), run, who, now())
    if not labels:
        raise DataError(f"{file}: no row has a label")
    everything = label_run(run.folder, labels)
    print(f"{numbers.count(len(labels), 'label')} taken in; {shorten(run.folder / 'labels.jsonl')} has {len(everything):,}")
    for score in dict.fromkeys(one.score for one in labels):
        for line in _people(everything, score):
            print(line)
        print(f"next: ostinato calibrate {shorten(run.folder)} --score {score}")
    return 0


def _people(labels: list[Label], score: str) -> list[str]:
    """Say how far the people agree who have labelled a score, if they are several."""
    from runner.analysis.labels import among_people

    people = sorted({one.who for one in labels if one.score == score})
    if len(people) < 2:  # noqa: PLR2004
        return []
    return [f"{score}: {len(people)} people: {agreement_in_words(among_people(labels, score))}"]


def agreement_in_words(found: Agreement) -> str:
    """Say how far people agree."""
    if found.raw is None:
        return f"no agreement to measure: {found.problem}"
    alpha = f"Krippendorff's alpha {found.alpha:.3f}" if found.alpha is not None else f"no alpha: {found.problem}"
    return f"{found.raw:.1%} of pairs agree on {numbers.count(found.units, 'answer')} with several labels; {alpha}"


def _rows(file: Path) -> list[dict[str, str | None]]:
    """Read a CSV file. Raise DataError if it cannot be read, or lacks a column."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{file}: {why}") from None
    if missing := [name for name in ("id", "label") if name not in columns]:
        raise DataError(f"{file} has no column '{missing[0]}'; `ostinato labels RUN --sample N` writes a file to fill in")
    return rows
