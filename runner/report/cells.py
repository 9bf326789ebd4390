"""A sweep in figures: what it came to, and one row a cell."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from runner.report.markup import Content, Html, table, tag, tile
from runner.report.plots import names_of_scores
from runner.report.text import brief
from runner.wording.numbers import dollars, interval, score, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.report.gather import Part, Subject


def sweep_tiles(subject: Subject) -> Iterator[Html]:
    """The best cell, how many there are, and what they have cost."""
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
    """The cells, the best by the primary score first, those without one last."""
    name = subject.primary or ""
    sign = 1 if subject.lower_is_better(name) else -1
    return sorted(subject.parts, key=lambda part: sign * mean if (mean := _mean(part, name)) is not None else math.inf)


def cells_table(subject: Subject) -> Html:
    """One row a cell, the best first; every column can be sorted where there is a script."""
    scores = names_of_scores(subject)
    heads = [
        "cell",
        *subject.keys,
        *(head for name in scores for head in (name, "95 %")),
        "status",
        "n",
        "errors",
        "cost",
        "p50",
        "p95",
    ]
    rows = [_row(part, subject.keys, scores) for part in ranked(subject)]
    return table("Cells, best first", heads, rows, class_="cells")


def _row(part: Part, keys: list[str], scores: list[str]) -> list[Content]:
    summary = part.summary
    values: list[Content] = [brief(part.values[key], 60) if key in part.values else None for key in keys]
    figures: list[Content] = []
    for name in scores:
        found = summary.scores.get(name) if summary else None
        reach = None if found is None or found.stderr is None else f"± {1.96 * found.stderr:.3f}"
        figures += [None if found is None or found.mean is None else f"{found.mean:.3f}", reach]
    known = summary is not None and summary.cost_usd is not None and not summary.model.startswith(("local/", "fake/"))
    latency = [None if (middle := part.facts.quantile(share)) is None else seconds(middle) for share in (0.5, 0.95)]
    return [
        f"#{part.number}",
        *values,
        *figures,
        tag("span", part.status, class_=f"pill {part.status}"),
        None if summary is None else summary.rows - summary.errors - summary.owed,
        None if summary is None else summary.errors,
        dollars(summary.cost_usd) if known and summary else None,
        *latency,
    ]


def _mean(part: Part, name: str) -> float | None:
    found = part.summary.scores.get(name) if part.summary else None
    return found.mean if found else None
