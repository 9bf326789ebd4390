"""JUnit XML for continuous integration: one test suite per run, one test case per sample."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from runner.analysis.flat import to_json
from runner.analysis.load import Run, Sweep
from runner.attachments import said
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.analysis.load import Cell
    from runner.records.outcome import Outcome
    from runner.types import Sample

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that an XML 1.0 document may not contain, not even escaped."""

_COUNTED = ("tests", "failures", "errors")


def junit(record: Run | Sweep) -> Iterator[str]:
    """Yield the document, piece by piece; a sweep has one test suite per cell that has a run.

    A sample that failed is an ``error``. One whose primary score is 0 or not a number is a ``failure``; without a score, one
    whose status is not ``ok``. A sample whose row has expectations of its own is a ``failure`` if it does not meet them, whatever
    its score. Each expectation of the run is a test case as well: an ``error`` if it is undecided. Prompt and answer are the
    ``system-out`` of a sample; the answer's latency is its time, in seconds. A class is named by experiment and cell, without the
    time of the run, so that tools recognise a test in the next run.
    """
    whole = [(record, "")] if isinstance(record, Run) else [(cell.run, _cell(cell)) for cell in record.cells if cell.run]
    counts = [_count(run) for run, _ in whole]
    total: Counter[str] = sum(counts, Counter())
    yield f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name={_attribute(record.name)}{_totals(total)}>\n'
    for (run, cell), counted in zip(whole, counts, strict=True):
        started = str(run.manifest.get("started_at", ""))[:19]  # the schema's time has no zone; ours is UTC
        stamp = f" timestamp={_attribute(started)}" if started else ""
        yield f"  <testsuite name={_attribute(run.name)}{stamp}{_totals(counted)}>\n"
        name = str(run.manifest.get("name") or run.name.partition("/")[0]) + cell
        yield from (line for outcome in _expected(run) for line in _expectation(outcome, name))
        for sample in run.samples():
            yield from _case(sample, run.primary, name)
        yield "  </testsuite>\n"
    yield "</testsuites>\n"


def _cell(cell: Cell) -> str:
    """Return ``.key=value,key=value``. Dots in it would be read as packages."""
    return "." + ",".join(f"{key.rpartition('.')[2]}={_plain(value)}" for key, value in cell.values.items()).replace(".", "_")


def _count(run: Run) -> Counter[str]:
    counted: Counter[str] = Counter()
    for outcome in _expected(run):
        counted["tests"] += 1
        counted["errors"] += outcome.verdict == "undecided"
        counted["failures"] += outcome.verdict == "fail"
    for sample in run.samples():
        problem = _problem(sample, run.primary)
        counted["tests"] += 1
        counted["errors"] += problem is not None and problem[0] == "error"
        counted["failures"] += problem is not None and problem[0] == "failure"
        counted["milliseconds"] += round(1000 * (sample.latency_s or 0.0))
    return counted


def _expected(run: Run) -> list[Outcome]:
    return run.summary.expectations if run.summary else []


def _expectation(outcome: Outcome, class_: str) -> Iterator[str]:
    yield f'    <testcase classname={_attribute(class_)} name={_attribute(f"expect {outcome.expected}")} time="0.000">\n'
    if outcome.verdict != "pass":
        kind = "failure" if outcome.verdict == "fail" else "error"
        yield f"      <{kind} type={_attribute(outcome.verdict)} message={_attribute(str(outcome))}></{kind}>\n"
    yield f"      <system-out>{_text(str(outcome))}</system-out>\n    </testcase>\n"


def _totals(counted: Counter[str]) -> str:
    numbers = "".join(f' {name}="{counted[name]}"' for name in _COUNTED)
    return f'{numbers} time="{counted["milliseconds"] / 1000:.3f}"'


def _problem(sample: Sample, primary: str | None) -> tuple[str, str, str] | None:
    """Return what is wrong with a sample: error or failure, its type, its message; None: nothing."""
    if sample.status == "error":
        error = sample.error
        return "error", error.code if error else "error", error.message if error else "failed"
    if sample.unmet is not None:
        return ("failure", "expectation", f"not met: {'; '.join(sample.unmet)}") if sample.unmet else None
    score = sample.scores.get(primary) if primary is not None else None
    if score is not None:
        return None if score > 0 or score < 0 else ("failure", primary or "score", f"{primary} is {score:g}")
    if sample.status == "ok":
        return None
    return "failure", sample.status, sample.error.message if sample.error else f"the answer is {sample.status}"


def _case(sample: Sample, primary: str | None, class_: str) -> Iterator[str]:
    name = sample.id + (f" (repeat {sample.repeat})" if sample.repeat else "")
    time = f"{sample.latency_s or 0.0:.3f}"
    yield f'    <testcase classname={_attribute(class_)} name={_attribute(name)} time="{time}">\n'
    if problem := _problem(sample, primary):
        kind, type_, message = problem
        wanted = "" if sample.target is None else _text(f"target: {_plain(sample.target)}\nanswer: {sample.output or ''}")
        yield f"      <{kind} type={_attribute(type_)} message={_attribute(message)}>{wanted}</{kind}>\n"
    yield f"      <system-out>{_text(_said(sample))}</system-out>\n    </testcase>\n"


def _said(sample: Sample) -> str:
    lines = [f"{message.get('role')}: {said(message)}" for message in sample.asked]
    lines += [f"answer: {sample.output}"] if sample.output is not None else []
    return "\n".join([*lines, *(f"{name}: {score:g}" for name, score in sample.scores.items())])


def _plain(value: object) -> str:
    return value if isinstance(value, str) else to_json(value)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", redact(text))


def _text(text: str) -> str:
    return escape(_clean(text), {"\r": "&#13;"})


def _attribute(text: str) -> str:
    return quoteattr(_clean(text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
