"""The section on judges: raw and corrected scores, and the confusion table of verdicts and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.errors import DataError, RecordError
from runner.reports.markup import Html, join, section, table, tag
from runner.reports.text import redacted
from runner.wording.numbers import count, mean, score_in_full

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.analysis.calibration import Calibration, Measured
    from runner.reports.gather import Part, Subject
    from runner.types import Corrected


def judges(subject: Subject) -> Html:
    """Return the section of a run whose scores are corrected for the errors of their judge; nothing for others."""
    (part, *_) = subject.parts
    if part.summary is None or not (part.summary.corrected or part.summary.calibration):
        return Html("")
    text = (
        "A judge errs. The corrected score is what labels of people say that the mean is without its errors; its interval "
        "contains the sampling of rows and that of labels."
    )
    remarks = [tag("p", remark, class_="note") for remark in redacted(part.summary.calibration)]
    parts = [piece for name, found in part.summary.corrected.items() for piece in _score(part, name, found)]
    return section("judges", "How wrong is the judge?", tag("p", text), *remarks, *parts)


def _score(part: Part, name: str, found: Corrected) -> Iterator[Html]:
    assert part.summary is not None
    raw = part.summary.scores.get(name)
    lines = [
        ("raw", score_in_full(raw) if raw else "–"),
        ("corrected", mean(found.mean, found.interval, unknown="unknown")),
        ("labels", f"{found.labels:,}" + (" of another run" if found.method == "rates" else "")),
    ]
    known = _calibration(part, name)
    if known is not None and known.table is not None:
        lines += [("sensitivity", _rate(known.sensitivity)), ("specificity", _rate(known.specificity))]
        lines += [("kappa", "–" if known.kappa is None else f"{known.kappa:.3f}")]
    if found.more is not None:
        lines.append(("to halve the interval", f"about {count(found.more, 'more label')}"))
    yield join([tag("h3", name), table(f"{name}, raw and corrected", ["measure", "value"], lines)])
    if known is not None and known.table is not None:
        counts = known.table
        rows = [
            ("judged right", counts.right_right, counts.right_wrong),
            ("judged wrong", counts.wrong_right, counts.wrong_wrong),
        ]
        yield table(f"{name}: verdicts and labels, in answers", ["", "labelled right", "labelled wrong"], rows)
    for remark in known.remarks if known else ():
        yield tag("p", remark, class_="note")


def _calibration(part: Part, name: str) -> Calibration | None:
    """Measure the judge by the labels of this run; None if it has none."""
    if part.run is None:
        return None
    from runner.analysis.calibration import calibrate

    try:
        return calibrate(part.run, name, "")
    except (DataError, RecordError):  # corrected by the labels of another run
        return None


def _rate(rate: Measured | None) -> str:
    return "unknown" if rate is None else mean(rate.mean, rate.interval)
