"""A sweep in numbers: the tiles of its summary, and one row per cell."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from runner.analysis.flat import CellFacts, RunFacts, flat_cells
from runner.reports.markup import Content, Html, table, tag, tile
from runner.reports.plots import names_of_scores
from runner.reports.text import brief
from runner.wording.numbers import dollars, half_width, interval, mean, score, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.reports.gather import Part, Subject

HEADS = {
    "status": "status",
    "n": "n",
    "errors": "errors",
    "cost_usd": "cost",
    "latency_p50_s": "p50",
    "latency_p95_s": "p95",
}
"""Headings of the columns that follow the varied keys and the scores, by their names in `runner.analysis.flat.flat_cells`."""


def sweep_tiles(subject: Subject) -> Iterator[Html]:
    """Yield the tiles of a sweep: its best cell, how many cells are complete, and what they have cost."""
    best = next(iter(ranked(subject)), None)
    if best is not None and best.summary and subject.primary and _mean(best, subject.primary) is not None:
        found = best.summary.scores[subject.primary]
        yield tile(f"best {subject.primary}", score(found), f"#{best.number} {best.label}; {interval(found)}", lead=True)
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
    """Return the cells, best first by the primary score, those without one last."""
    name = subject.primary or ""
    sign = 1 if subject.lower_is_better(name) else -1
    return sorted(subject.parts, key=lambda part: sign * value if (value := _mean(part, name)) is not None else math.inf)


def cells_table(subject: Subject) -> Html:
    """Lay out the table of `flat_cells`, best cell first; every column can be sorted where there is a script."""
    scores = names_of_scores(subject)
    heads = ["cell", *subject.keys, *(head for name in scores for head in (name, "95 %")), *HEADS.values()]
    parts = ranked(subject)
    table_rows = flat_cells([_facts(part) for part in parts], subject.keys)
    rows = [_row(row, part, subject.keys, scores) for row, part in zip(table_rows, parts, strict=True)]
    return table("Cells, best first", heads, rows, class_="cells")


def _facts(part: Part) -> CellFacts:
    run = RunFacts(part.folder, part.status, part.summary, part.facts.latencies) if part.folder else None
    return CellFacts(f"#{part.number}", part.values, part.status, part.problem, run)


def _row(row: dict[str, Any], part: Part, keys: list[str], scores: list[str]) -> list[Content]:
    means: list[Content] = []
    for name in scores:
        value, error = row[f"score.{name}"], row[f"score.{name}.stderr"]
        means += [None if value is None else mean(value), None if error is None else half_width(error)]
    here = part.summary is not None and part.summary.model.startswith(("local/", "fake/"))
    return [
        row["cell"],
        *(brief(part.values[key], 60) if key in part.values else None for key in keys),
        *means,
        tag("span", row["status"], class_=f"pill {row['status']}"),
        row["n"],
        row["errors"],
        None if here or row["cost_usd"] is None else dollars(row["cost_usd"]),
        *(None if row[column] is None else seconds(row[column]) for column in ("latency_p50_s", "latency_p95_s")),
    ]


def _mean(part: Part, name: str) -> float | None:
    found = part.summary.scores.get(name) if part.summary else None
    return found.mean if found else None
