"""A sweep in numbers: the tiles of its summary, and one row per cell."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.analysis.flat import CellFacts, RunFacts, flat_cells, interval_in
from runner.reports.markup import Content, Html, join, table, tag, tile
from runner.reports.plots import names_of_scores
from runner.reports.text import brief
from runner.wording.numbers import bounds, dollars, interval, mean, score, seconds
from runner.wording.statuses import ADVICE_FOR_CELLS, JUDGES, PARTIAL, columns_of, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.reports.gather import Part, Subject

HEADS = {"cost_usd": "cost", "latency_p50_s": "p50", "latency_p95_s": "p95"}
"""Headings of the columns after the counts, by their names in `runner.analysis.flat.flat_cells`."""

_CORRECTED = ".corrected"


def sweep_tiles(subject: Subject) -> Iterator[Html]:
    """Yield the tiles of a sweep: its best cell, how many cells are complete, and what they have cost."""
    best = next((part for part in subject.parts if part.standing.is_best), None)
    if best is not None and best.summary and subject.primary:
        found = best.summary.scores[subject.primary]
        lacking = f"; {best.standing.left_out:,} samples left out" if best.standing.left_out else ""
        yield tile(f"best {subject.primary}", score(found), f"#{best.number} {best.label}; {interval(found)}{lacking}", lead=True)
    elif any(part.standing.judge for part in subject.parts):
        yield tile(f"best {subject.primary}", "none", "cells were judged by different judges", lead=True)
    elif any(part.standing.word for part in subject.parts):
        yield tile(f"best {subject.primary}", "none", "no cell has scored enough samples", lead=True)
    states = Counter(part.status for part in subject.parts)
    others = ", ".join(f"{number} {state}" for state, number in states.items() if state != "complete")
    yield tile("cells complete", f"{states['complete']} of {len(subject.parts)}", others or "all")
    done = [part.summary for part in subject.parts if part.summary]
    errors = sum(one.errors for one in done)
    yield tile(
        "samples", f"{sum(one.rows - one.errors - one.owed for one in done):,}", f"{errors:,} errors" if errors else "no errors"
    )
    tokens = sum(one.usage.total_tokens + one.usage_cached.total_tokens for one in done)
    yield tile("tokens", f"{tokens:,}")
    costs = [one.cost_usd for one in done if not one.model.startswith(("local/", "fake/"))]
    if costs:
        known = [cost for cost in costs if cost is not None]
        unknown = len(costs) - len(known)
        yield tile(
            "cost",
            dollars(math.fsum(known)) if known else "unknown",
            f"and {unknown} cells of unknown cost" if unknown and known else "",
        )
    yield tile("time", seconds(math.fsum(one.wall_s for one in done)), "over all cells")


def ranked(subject: Subject) -> list[Part]:
    """Return the cells in the order of their ranks, then partial cells, then those without a score: see `analysis.ranking`."""
    sign = 1 if subject.lower_is_better(subject.primary or "") else -1

    def place(part: Part) -> tuple[float, float, float]:
        value, rank = _mean(part, subject.primary or ""), part.standing.rank
        judge = (part.standing.judge or 0) if rank else math.inf
        return judge, rank or math.inf, math.inf if value is None else sign * value

    return sorted(subject.parts, key=place)


def cells_table(subject: Subject) -> Html:
    """Lay out the table of `flat_cells`, best cell first; every column can be sorted where there is a script."""
    parts = ranked(subject)
    rows = flat_cells([_facts(part) for part in parts], subject.keys, subject.primary)
    common = next((count for row in rows if (count := row.get(f"score.{subject.primary}.common.n"))), None)
    counts = columns_of(rows, always=("errors",))
    columns = _Columns(
        subject.keys,
        _with_corrected(names_of_scores(subject), rows[0] if rows else {}),
        f"score.{subject.primary}.common" if common else None,
        list(counts),
    )
    heads = ["cell", *subject.keys, *(head for name in columns.scores for head in (_heading(name), "95 %"))]
    heads += [f"on {common:,} rows in common"] if common else []
    heads += ["standing", "status", "n", *counts.values(), *HEADS.values()]
    lines = [_row(row, part, columns) for row, part in zip(rows, parts, strict=True)]
    return join([table("Cells, best first", heads, lines, class_="cells"), *_remarks(parts)])


def _with_corrected(names: list[str], row: dict[str, Any]) -> list[str]:
    """Return the names of scores, each followed by that of its corrected mean if a cell has one."""
    return [one for name in names for one in (name, f"{name}{_CORRECTED}") if f"score.{one}" in row]


def _heading(name: str) -> str:
    return f"{name.removesuffix(_CORRECTED)}, corrected" if name.endswith(_CORRECTED) else name


class _Columns(NamedTuple):
    """The columns of the table that depend on the sweep: varied keys, scores, the mean on common rows (if shown), counts."""

    keys: list[str]
    scores: list[str]
    common: str | None
    counts: list[str]


def _remarks(parts: list[Part]) -> Iterator[Html]:
    """Yield what a reader of the table needs to know: cells that are not ranked, and samples that are not independent."""
    if any(part.standing.word == "partial" for part in parts):
        yield tag("p", f"partial: {PARTIAL}, nor drawn below; {ADVICE_FOR_CELLS}", class_="note")
    if any(part.standing.judge for part in parts):
        yield tag("p", JUDGES, class_="note")
    numbers = {part.id: part.number for part in parts}
    twins = [part for part in parts if part.standing.same_as]
    if twins:
        pairs = [(part, numbers[part.standing.same_as or ""]) for part in twins]
        told = "; ".join(
            f"{part.standing.same:,} samples of #{part.number} answer the same requests as #{n}" for part, n in pairs
        )
        yield tag("p", f"not independent: {told}", class_="note")


def _facts(part: Part) -> CellFacts:
    facts = part.facts
    run = RunFacts(part.folder, part.status, part.summary, facts.latencies, facts.first_tokens) if part.folder else None
    return CellFacts(f"#{part.number}", part.values, part.status, part.problem, run, part.standing)


def _row(row: dict[str, Any], part: Part, columns: _Columns) -> list[Content]:
    means: list[Content] = []
    for name in columns.scores:
        value, ends = row[f"score.{name}"], interval_in(row, name)
        means += [None if value is None else mean(value), None if ends is None else bounds(ends)]
    if columns.common:
        means.append(None if row[columns.common] is None else mean(row[columns.common]))
    here = part.summary is not None and part.summary.model.startswith(("local/", "fake/"))
    return [
        row["cell"],
        *(brief(part.values[key], 60) if key in part.values else None for key in columns.keys),
        *means,
        standing(row) or None,
        tag("span", row["status"], class_=f"pill {row['status']}"),
        row["n"],
        *(row[name] for name in columns.counts),
        None if here or row["cost_usd"] is None else dollars(row["cost_usd"]),
        *(None if row[column] is None else seconds(row[column]) for column in ("latency_p50_s", "latency_p95_s")),
    ]


def _mean(part: Part, name: str) -> float | None:
    found = part.summary.scores.get(name) if part.summary else None
    return found.mean if found else None
