"""The charts of a page: scores against the varied keys, against cost and latency, and their distributions."""

from __future__ import annotations

import math
from array import array
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from runner.analysis.judges import judge_of
from runner.reports.axes import Axis, axis_of, categories, figure, log_scale, rounds, scale
from runner.reports.charts import Point, Series, Words, bars, plot
from runner.reports.text import brief, whole
from runner.wording.numbers import dollars, mean, score, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from runner.reports.gather import Part, Subject
    from runner.reports.markup import Content, Html
    from runner.types import Score

MODEL_KEYS = ("model", "model.name")
_BINS = 10
_POOLED = " Where several cells share a value, the point is the mean of their scores, its interval the mean of their intervals."
_INTERVALS = "Bars are 95 % intervals."
_APART = " Scores of different judges are not compared."


def names_of_scores(subject: Subject) -> list[str]:
    """Return the names of all scores, the primary one first."""
    found = dict.fromkeys(name for part in subject.parts if part.summary for name in part.summary.scores)
    return sorted(found, key=lambda name: name != subject.primary)


def charts_of(subject: Subject, name: str) -> Iterator[Html]:
    """Yield the charts of one score of a sweep, without partial cells."""
    parts = [part for part in subject.parts if _mean(part, name) is not None and part.standing.word != "partial"]
    if not parts:
        return
    lines = Lines(parts, name)
    keys = [key for key in subject.keys if key not in MODEL_KEYS]
    for key in keys or subject.keys:
        yield _against_key(parts, name, key, lines)
    lower = subject.lower_is_better(name)
    for measure in (
        Measure("cost", "US dollars per 1,000 samples", cost_of, dollars),
        Measure("latency", "median latency, seconds", lambda part: part.facts.quantile(0.5), seconds),
    ):
        yield from _trade(parts, name, lines, measure, lower_is_better=lower)


def model_of(part: Part) -> str:
    """Return the model that names a cell's line: the one that the sweep chose, else the one that was asked."""
    chosen = [whole(part.values[key]) for key in MODEL_KEYS if key in part.values]
    return " ".join(chosen) or (part.summary.model if part.summary else "")


class Lines:
    """Tell which line of a chart each cell belongs to: that of its model, and of its judge if the cells have different ones.

    Args:
        parts: the cells of the chart.
        name: the score.

    Attributes:
        names: the lines, in the order of their first cells.
        judged_apart: whether the cells have different judges.
    """

    def __init__(self, parts: Sequence[Part], name: str) -> None:
        judges: list[dict[str, Any]] = []
        numbers: dict[int, int] = {}
        for part in parts:
            judge = judge_of(part.manifest, name)
            if judge not in judges:
                judges.append(judge)
            numbers[part.number] = judges.index(judge) + 1
        self.judged_apart = len(judges) > 1
        self._of = {
            part.number: f"{model_of(part)}, judge {numbers[part.number]}" if self.judged_apart else model_of(part)
            for part in parts
        }
        self.names = list(dict.fromkeys(self._of.values()))

    def cells(self, line: str, parts: Sequence[Part]) -> list[Part]:
        """Return those of the cells that belong to a line."""
        return [part for part in parts if self._of[part.number] == line]

    @property
    def said(self) -> str:
        """The names of several lines, as a sentence says them."""
        return "model and judge" if self.judged_apart else "model"


def cost_of(part: Part) -> float | None:
    """Return dollars per 1,000 answered samples, answers from the cache at their original cost. None: unknown or free."""
    summary = part.summary
    if summary is None or summary.cost_usd is None:
        return None
    answered = summary.rows - summary.errors - summary.owed
    spent = summary.cost_usd + (summary.saved_usd or 0.0)
    return 1000 * spent / answered if answered and spent else None


def _score(part: Part, name: str) -> Score | None:
    return part.summary.scores.get(name) if part.summary else None


def _mean(part: Part, name: str) -> float | None:
    found = _score(part, name)
    return found.mean if found else None


# --- against a varied key


def _against_key(parts: Sequence[Part], name: str, key: str, lines: Lines) -> Html:
    """Draw a score against one varied key, a series per line; the cells of a line that share a value are one point."""
    varied = [part for part in parts if key in part.values]
    x = axis_of(part.values[key] for part in varied)
    found = {line: _by_value(lines.cells(line, varied), key, x) for line in lines.names}
    joined = key not in MODEL_KEYS and (not x.names or _ordered(x))
    series = [
        Series(brief(line, 60), [_pooled(cells, name, key) for cells in groups], number, line=joined)
        for number, (line, groups) in enumerate(found.items())
    ]
    points = [point for one in series for point in one.points]
    cells = [len(cells) for groups in found.values() for cells in groups]
    labels = [one.name for one in series for _ in one.points]
    words = Words(
        title=f"{name} against {key}",
        about=f"Mean {name} for each value of {key}{f', one line per {lines.said}' if len(lines.names) > 1 else ''}. {_INTERVALS}"
        + (_POOLED if any(number != 1 for number in cells) else "")
        + (_APART if lines.judged_apart else ""),
        x=f"{key} (logarithmic)" if x.log else key,
        y=name,
        heads=["model", key, name, "95 % from", "to", "cells"],
        rows=[_figures(*row) for row in zip(labels, points, cells, strict=True)],
    )
    if key in MODEL_KEYS and not lines.judged_apart:  # each model is a place on the axis already
        series = [Series(name, points, line=False)]
    return plot(words, x, _score_axis(points), series)


def _by_value(parts: Sequence[Part], key: str, x: Axis) -> list[list[Part]]:
    """Return the cells grouped by their value of `key`, in the order of the axis."""
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(whole(part.values[key]), []).append(part)
    return sorted(groups.values(), key=lambda cells: x.at(cells[0].values[key]))


def _ordered(x: Axis) -> bool:
    """Return whether categories are numbers in order, so that a line through them is meaningful."""
    try:
        return [float(name) for name in x.names or ()] == sorted(float(name) for name in x.names or ())
    except ValueError:
        return False


def _pooled(group: Sequence[Part], name: str, key: str) -> Point:
    """Return the cells that share a value as one point.

    The ends of their intervals are averaged, and do not come nearer with their number: cells share rows, and the error of a mean
    of correlated means is at most the mean of their errors. So the interval may be too wide but never too narrow.
    """
    found = [score for part in group if (score := _score(part, name)) and score.mean is not None]
    middle = math.fsum(one.mean or 0.0 for one in found) / len(found)
    known = [one.interval for one in found if one.interval is not None]
    ends = tuple(math.fsum(some) / len(known) for some in zip(*known, strict=True)) if len(known) == len(found) else None
    value = group[0].values[key]
    low, high = ends or (None, None)
    where = ", ".join(f"#{part.number}" for part in group[:5]) + ("…" if len(group) > 5 else "")  # noqa: PLR2004
    text = f"{model_of(group[0])}, {key}={brief(value)}: {mean(middle, ends)}"
    return Point(value, middle, low, high, f"{text} (cell {where})")


def _figures(model: str, point: Point, cells: int) -> list[Content]:
    ends = [None if end is None else mean(end) for end in (point.low, point.high)]
    return [model, brief(point.x), mean(point.y), *ends, cells]


def _score_axis(points: Sequence[Point]) -> Axis:
    """Return an axis from 0 to 1 if all means lie there, with the intervals cut off; else one around everything."""
    values = [point.y for point in points]
    if all(0 <= value <= 1 for value in values):
        return scale(values, bounds=(0.0, 1.0))
    ends = [end for point in points for end in (point.low, point.high) if end is not None]
    return scale(values + ends)


# --- against what it costs


class Measure(NamedTuple):
    """A quantity that a score is traded against: its name and unit, how to read it from a cell, and how to write it."""

    what: str
    unit: str
    of: Callable[[Part], float | None]
    write: Callable[[float | None], str]


def _trade(parts: Sequence[Part], name: str, lines: Lines, measure: Measure, *, lower_is_better: bool) -> Iterator[Html]:
    """Draw a score against what it costs. Cells of different judges have no front, as none of them beats another."""
    what, unit, write = measure.what, measure.unit, measure.write
    measured = [(part, value) for part in parts if (value := measure.of(part)) is not None]
    if not measured:
        return
    points = {part.number: _placed(part, name, value, write) for part, value in measured}
    sign = -1 if lower_is_better else 1
    front = pareto([(value, sign * points[part.number].y, part.number) for part, value in measured])
    front = [] if lines.judged_apart else front
    cells = [part for part, _ in measured]
    series = [
        Series(brief(line, 60), [points[part.number] for part in lines.cells(line, cells)], number, line=False)
        for number, line in enumerate(lines.names)
    ]
    values = [value for _, value in measured]
    spread = min(values) > 0 and max(values) / min(values) >= 10  # noqa: PLR2004
    x = log_scale(values) if spread else scale(values, bounds=(0.0, max(values) * 1.08 or 1.0))
    rows: list[list[Content]] = [
        [
            *(f"#{part.number} {part.label}", write(value), score(_score(part, name))),
            *(() if lines.judged_apart else ("yes" if part.number in front else "no",)),
        ]
        for part, value in sorted(measured, key=lambda pair: pair[1])
    ]
    joined = _APART if lines.judged_apart else " The line joins the cells that no other beats in both (the Pareto front)."
    words = Words(
        title=f"{name} against {what}",
        about=f"Each cell's {name} and its {unit}.{joined}",
        x=f"{unit}{' (logarithmic)' if spread else ''}",
        y=name,
        heads=["cell", unit, name] + ([] if lines.judged_apart else ["on the front"]),
        rows=rows,
    )
    yield plot(
        words, x, _score_axis(list(points.values())), [one for one in series if one.points], front=[points[n] for n in front]
    )


def _placed(part: Part, name: str, value: float, write: Callable[[float | None], str]) -> Point:
    found = _score(part, name)
    assert found is not None
    assert found.mean is not None
    low, high = found.interval or (None, None)
    return Point(value, found.mean, low, high, f"#{part.number} {part.label}: {mean(found.mean)}, {write(value)}")


def pareto(points: Sequence[tuple[float, float, int]]) -> list[int]:
    """Return the numbers of the points (cost, score, number) that no other point dominates.

    They are in ascending order of cost. Of equal points the first stands for all.
    """
    best = -math.inf
    front = []
    for _, gain, number in sorted(points, key=lambda point: (point[0], -point[1], point[2])):
        if gain > best:
            best = gain
            front.append(number)
    return front


# --- how scores and latencies are spread


def spreads(subject: Subject) -> Iterator[Html]:
    """Yield the distribution of each score over the samples of a run, or of each model of a sweep, and of a run's latencies."""
    for name in names_of_scores(subject):
        yield from spread_of(subject, name)
    if subject.kind == "run" and len(subject.parts[0].facts.latencies) > 1:
        yield _histogram("latency", "latency of requests, seconds", subject.parts[0].facts.latencies, "requests")


def spread_of(subject: Subject, name: str) -> Iterator[Html]:
    """Yield the distribution of one score, one chart per line."""
    parts = [part for part in subject.parts if part.facts.scores.get(name)]
    lines = Lines(parts, name)
    for number, line in enumerate(lines.names):
        values = array("d", chain.from_iterable(part.facts.scores[name] for part in lines.cells(line, parts)))
        yield _histogram(f"{name}, {line}" if len(lines.names) > 1 else name, name, values, "samples", number)


def _histogram(title: str, x_name: str, values: Sequence[float], of: str, number: int = 0) -> Html:
    counted, x = _binned(values, fixed=of == "samples")
    most = max(count for _, _, count, _ in counted)
    y = scale([0, most], [tick for tick in rounds(0, most) if tick == int(tick)], bounds=(0.0, most * 1.05))
    heights = [(low, high, count, f"{name}: {count:,} {of}") for low, high, count, name in counted]
    words = Words(
        title=f"Distribution of {title}",
        about=f"{len(values):,} {of}, by {x_name}.",
        x=x_name, y=of, heads=[x_name, of, "share"],
        rows=[[name, count, f"{count / len(values):.1%}"] for _, _, count, name in counted],
    )  # fmt: skip
    return bars(words, x, y, heights, number)


def _binned(values: Sequence[float], *, fixed: bool) -> tuple[list[tuple[float, float, int, str]], Axis]:
    """Return bars (from, to, count, name) and their axis: one bar per value for one or two values, else ten of equal width.

    `fixed`: values between 0 and 1 have an axis from 0 to 1.
    """
    counts: dict[float, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
        if len(counts) > 2:  # noqa: PLR2004 - too many for a bar each
            break
    if fixed and set(counts) <= {0.0, 1.0}:
        counts = {0.0: 0, 1.0: 0, **counts}
    if len(counts) <= 2:  # noqa: PLR2004 - right and wrong, or one value only
        names = [figure(value) for value in sorted(counts)]
        places = categories(names)
        axis = Axis(places.low, places.high, places.ticks)
        return [(i - 0.3, i + 0.3, counts[value], figure(value)) for i, value in enumerate(sorted(counts))], axis
    low, high = min(values), max(values)
    low, high = (0.0, 1.0) if fixed and low >= 0 and high <= 1 else (low, high)
    step = (high - low) / _BINS
    heights = [0] * _BINS
    for value in values:
        heights[min(_BINS - 1, int((value - low) / step))] += 1
    edges = [low + index * step for index in range(_BINS + 1)]
    edge = [figure(float(f"{value:.3g}")) for value in edges]
    found = [(edges[i], edges[i + 1], heights[i], f"{edge[i]} to {edge[i + 1]}") for i in range(_BINS)]
    return found, scale(edges, bounds=(low, high))
