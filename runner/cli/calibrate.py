"""Run `ostinato calibrate`: print how often a judge errs, by the labels of a run, and its mean score corrected for that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.display import aligned
from runner.cli.labels import agreement_in_words, run_named, score_named
from runner.cli.options import add_json, add_run, count, shorten
from runner.errors import RecordError
from runner.wording import numbers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from runner.analysis.calibration import Calibration, Consistency, Measured
    from runner.types import Corrected

_HOW = {
    "posterior": "labels of answers of this run, drawn at random or by verdict: Beta posteriors of P(right | verdict)",
    "regression": "labels of answers of this run, drawn at random: the regression estimator (PPI++)",
    "rates": "sensitivity and specificity from labels of another run: Rogan and Gladen's estimate, Fieller's interval",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Measure the judge of a run by the labels beside its record (`ostinato labels`): confusion table, sensitivity and "
        "specificity, kappa, and the mean score corrected for the errors of the judge. With -o, write a calibration that other "
        "runs name: scoring.calibration=FILE."
    )
    add_run(parser)
    parser.add_argument("--score", metavar="NAME", help="the score to calibrate (default: the primary one)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the calibration, as JSON")
    parser.add_argument(
        "--again",
        type=count,
        default=0,
        metavar="N",
        help="have the judge judge N answers again, at its own temperature, and tell how often it says the same "
        "(default: 0, nobody is asked)",
    )
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Calibrate. Return 0.

    Raises:
        ConfigError: the record is a sweep, or lacks the score; or no judge gives it that could be asked again.
        DataError: it has no labels of the score.
        RecordError: the labels cannot be read, or FILE cannot be written.
        LMError, BudgetExceeded, CacheError: the judge cannot be asked again; the cache has what it has said so far.
    """
    import msgspec

    from runner.analysis.calibration import calibrate
    from runner.system import files
    from runner.system.clock import now

    run = run_named(args.run, args.runs_dir)
    found = calibrate(run, score_named(run, args.score), now())
    if args.again:
        from runner.experiment.consistency import consistency

        found = msgspec.structs.replace(found, again=consistency(run.folder, found.score, args.again))
    content = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    if args.output is not None:
        try:
            files.write(args.output, content)
        except OSError as error:
            raise RecordError(f"{args.output} cannot be written: {error.strerror}") from None
    if args.json:
        print(content.decode(), end="")
        return 0
    for line in _told(found):
        print(line)
    if args.output is not None:
        print(f"written: {shorten(args.output.absolute())}; other runs use it with scoring.calibration={args.output}")
    return 0


def _told(found: Calibration) -> Iterator[str]:
    people = numbers.count(len(found.people), "labeller")
    yield f"{found.score} of {found.run}: {numbers.count(found.labels, 'labelled answer')}, {people} ({', '.join(found.people)})"
    if (table := found.table) is not None:
        yield ""
        yield from aligned(
            [
                ("", "labelled right", "labelled wrong"),
                ("judged right", f"{table.right_right:,}", f"{table.right_wrong:,}"),
                ("judged wrong", f"{table.wrong_right:,}", f"{table.wrong_wrong:,}"),
            ]
        )
    yield ""
    yield from aligned(list(_lines(found)))
    if found.corrected is not None:
        yield f"by {_HOW[found.corrected.method]}"
        yield _more(found.corrected)
    if found.again is not None:
        yield _asked_again(found.again)
        if found.again.others:
            yield f"remark: {', '.join(found.again.others)} answered, another model than the one that judged the run"
    for remark in found.remarks:
        yield f"remark: {remark}"


def _lines(found: Calibration) -> Iterator[tuple[str, str]]:
    if found.table is not None:
        yield "sensitivity", _rate(found.sensitivity)
        yield "specificity", _rate(found.specificity)
    yield "agreement", f"{found.agreement:.3f}"
    if found.kappa is not None:
        yield "kappa", f"{found.kappa:.3f}"
    if found.among_people is not None:
        yield "among people", agreement_in_words(found.among_people)
    if found.again is not None:
        yield "self-consistency", numbers.mean(found.again.same, found.again.interval)
    yield "raw score", f"{found.raw:.3f}"
    yield "corrected score", numbers.corrected(found.corrected) if found.corrected else "none: at least two labels are needed"


def _asked_again(found: Consistency) -> str:
    cost = "of unknown cost" if found.cost_usd is None else numbers.dollars(found.cost_usd)
    unusable = f", {found.unusable:,} without a usable verdict" if found.unusable else ""
    asked = numbers.count(found.asked, "answer")
    return f"judged again: {asked}{unusable}; {numbers.count(found.requests, 'request')}, {cost}"


def _rate(rate: Measured | None) -> str:
    return "unknown: no labelled answer is of this kind" if rate is None else numbers.mean(rate.mean, rate.interval)


def _more(found: Corrected) -> str:
    if found.more is None:
        return "no number of labels would halve the interval: that needs more answers"
    return f"about {numbers.count(found.more, 'more label')} would halve the interval"
