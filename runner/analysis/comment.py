"""Comparisons as Markdown, for a comment on a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.secrets import redact
from runner.wording import numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.analysis.changes import ScoreChange
    from runner.analysis.compare import Comparison
    from runner.analysis.pairs import Flip
    from runner.records.outcome import Outcome

LONGEST = 60_000
"""Characters of a comment; GitHub takes 65,536."""

CELL = 200
"""Characters of an answer in a table."""

_SIGNS = {**{sign: f"\\{sign}" for sign in "\\|`*_[]~"}, "<": "&lt;", ">": "&gt;", "@": "&#64;"}
"""Characters with a meaning for Markdown or HTML, and @, which would notify people, and how they are written."""


def comment(found: Sequence[Comparison], outcomes: Sequence[Sequence[Outcome]] = ()) -> str:
    """Write comparisons as Markdown: verdicts and a table each, what was expected, and the rows that flipped, folded away.

    Args:
        found: with the same reference.
        outcomes: of the expectations of each compared run.

    Returns:
        Text without secrets, cut to what GitHub takes.
    """
    outcomes = outcomes or [()] * len(found)
    text = ""
    for part in [part for one, expected in zip(found, outcomes, strict=True) for part in _parts(one, expected)]:
        if len(text) + len(part) > LONGEST:
            return f"{text}\n(cut: `ostinato compare` prints all of it)\n"
        text += f"{part}\n"
    return redact(text)


def _parts(found: Comparison, expected: Sequence[Outcome]) -> Iterator[str]:
    yield from _comparison(found)
    yield from _expected(expected)
    yield from _flips(found)


def _comparison(found: Comparison) -> Iterator[str]:
    yield f"### {plain(found.b)} against {plain(found.a)}\n"
    for name, change in found.scores.items():
        yield f"- {_verdict(name, change)}"
    for name, one in found.corrected.items():
        told = numbers.change(one.difference, one.interval)
        yield f"- {plain(name)}, corrected for the errors of the judge: {told} ({numbers.count(one.labels, 'label')})"
    if not found.scores:
        yield "- **no verdict**: the runs have no score in common"
    yield f"\n| score | {plain(found.a)} | {plain(found.b)} | difference | {found.level:.0%} interval | p | rows |"
    yield "| --- | ---: | ---: | ---: | --- | ---: | ---: |"
    yield from (_row(name, change) for name, change in found.scores.items())
    if found.errors_a or found.errors_b:
        yield f"\nNot in the scores: samples that failed ({found.errors_a:,} in the reference, {found.errors_b:,} here)."


def _verdict(name: str, change: ScoreChange) -> str:
    if change.verdict is None or change.difference.mean is None:
        return f"{plain(name)}: **no verdict**, no sample has it in both"
    told = numbers.change(change.difference.mean, change.difference.ci)
    return f"{plain(name)}: **{change.verdict}**, {told}"


def _row(name: str, change: ScoreChange) -> str:
    found = change.difference
    if found.mean is None or found.p is None:
        return f"| {plain(name)} | – | – | – | – | – | 0 |"
    interval = "–" if found.ci is None else numbers.bounds(found.ci, sign="+")
    cells = [numbers.mean(change.mean_a), numbers.mean(change.mean_b), numbers.change(found.mean), interval]
    return f"| {plain(name)} | {' | '.join([*cells, numbers.p_value(found.p).replace('<', '&lt;'), f'{found.n:,}'])} |"


def _expected(outcomes: Sequence[Outcome]) -> Iterator[str]:
    if outcomes:
        yield "\n| expected | verdict |\n| --- | --- |"
        yield from (f"| {plain(one.expected)} | {plain(str(one))} |" for one in outcomes)


def _flips(found: Comparison) -> Iterator[str]:
    if not found.flips:
        return
    counted = numbers.count(found.changed, "changed answer")
    yield f"\n<details><summary>{len(found.flips)} of {counted}</summary>\n"
    yield "| row | score | target | before | now |\n| --- | --- | --- | --- | --- |"
    yield from map(_flip, found.flips)
    yield "\n</details>"


def _flip(flip: Flip) -> str:
    scores = "–" if flip.score_a is None or flip.score_b is None else f"{flip.score_a:g} → {flip.score_b:g}"
    texts = ["–" if flip.target is None else str(flip.target), flip.output_a, flip.output_b]
    row = plain(flip.id) + (f" ({flip.repeat})" if flip.repeat else "")
    return f"| {row} | {scores} | {' | '.join(map(plain, texts))} |"


def plain(text: str) -> str:
    """Return text for a cell: on one line, shortened, without meaning to Markdown or HTML."""
    flat = " ".join(text.split())
    flat = flat if len(flat) <= CELL else f"{flat[:CELL]}…"
    return "".join(_SIGNS.get(sign, sign) for sign in flat)
