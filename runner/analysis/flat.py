"""Records as flat rows, for tables: a sample as one row, and a run or a sweep's cell as one."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.analysis.ranking import Standing
from runner.stats.stats import quantile
from runner.types import Sample, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.records import Summary

_SCORE = {"": "mean", ".stderr": "stderr", ".n": "n"}
_ENDS = (".low", ".high")
_COUNTS = ("ok", "errors", "refused", "truncated", "empty", "invalid", "owed", "scored", "cache_hits", "requests")
_FIRST, _SAID = ("id", "repeat", "status"), ("output", "target", "parsed", "messages", "prompt")
_NESTED = {"error": ("code", "message", "status", "request_id"), "usage": Usage.__struct_fields__}
_PLACED = {*_FIRST, "scores", *_SAID, *_NESTED, "answers", "steps"}
_OTHERS = [field for field in Sample.__struct_fields__ if field not in _PLACED]
_STRUCTS = {"held", "named", "judgements", "answers", "steps"}


def score_names(samples: Iterable[Sample]) -> list[str]:
    """Return the names of all scores, in order of appearance."""
    return list({name: None for sample in samples for name in sample.scores})


def sample_columns(samples: Sequence[Sample], scores: Sequence[str]) -> dict[str, list[Any]]:
    """Return samples as a table: their values by column. The columns depend on `scores` alone.

    Columns: ``id``, ``repeat``, ``status``, ``score.NAME`` for each of `scores`, ``output``, ``target``, ``parsed``, ``messages``
    or ``prompt``, ``error.code|message|status|request_id``, ``usage.prompt_tokens`` and the other kinds of token,
    then the other fields of `runner.types.Sample`. Unknown is None. The data's own columns are not recorded: join them by ``id``.
    """
    columns = {field: _values(samples, field) for field in _FIRST}
    columns |= {f"score.{name}": [sample.scores.get(name) for sample in samples] for name in scores}
    columns |= {field: _values(samples, field) for field in _SAID}
    for part, fields in _NESTED.items():
        parts = _values(samples, part)
        columns |= {f"{part}.{field}": values for field, values in _inside(parts, fields).items()}
    for field in (*_OTHERS, "answers", "steps"):
        values = _values(samples, field)
        columns[field] = msgspec.to_builtins(values) if field in _STRUCTS and any(values) else values
    return columns


def _values(objects: Sequence[Any], field: str) -> list[Any]:
    return list(map(attrgetter(field), objects))


def _inside(parts: Sequence[Any], fields: Iterable[str]) -> dict[str, list[Any]]:
    """Return the values of some objects by field; None of None."""
    there = sum([part is not None for part in parts])  # `count` would compare each with None
    if there == len(parts):
        return {field: _values(parts, field) for field in fields}
    return {field: [getattr(part, field, None) for part in parts] if there else [None] * len(parts) for field in fields}


class RunFacts(NamedTuple):
    """The source of a run's row; `latencies` and `first_tokens` are its samples', in seconds and sorted."""

    name: str
    status: str | None
    summary: Summary | None
    latencies: Sequence[float]
    first_tokens: Sequence[float] = ()


class CellFacts(NamedTuple):
    """The source of a cell's row: `values` by varied key, the facts of its run (None before it has one), and where it stands."""

    id: str
    values: Mapping[str, Any]
    status: str
    problem: str | None
    run: RunFacts | None
    standing: Standing = Standing()


def corrected_names(summaries: Iterable[Summary | None]) -> list[str]:
    """Return the scores that are corrected for the errors of their judge in one of the summaries."""
    return list(dict.fromkeys(name for summary in summaries if summary for name in summary.corrected))


def flat_run(run: RunFacts | None, scores: Sequence[str], corrected: Sequence[str] = ()) -> dict[str, Any]:
    """Return a run as one row, whose columns depend on `scores` and `corrected` alone.

    Columns: ``run``, ``model``, ``status``, ``n`` (samples: rows × repeats), for each of `scores` ``score.NAME`` (its mean)
    with ``.stderr``, ``.n`` and its 95 % interval, ``.low`` and ``.high``, for each of `corrected` ``score.NAME.corrected`` (its
    mean, corrected for the errors of its judge) with ``.low``, ``.high`` and ``.labels``, counts of samples by status,
    ``scored`` and ``cache_hits`` (samples), ``requests``, tokens of requests made (``prompt_tokens``, ``completion_tokens``)
    and of answers from the cache (the same with ``cached_``), ``cost_usd``, ``saved_usd``, and ``wall_s``, ``latency_p50_s``,
    ``latency_p95_s`` and ``first_token_p50_s`` (of streamed answers) in seconds. Unknown is None: a run without a summary has
    its name and its status alone.
    """
    summary = run.summary if run else None
    latencies, first_tokens = (run.latencies, run.first_tokens) if run and summary else ((), ())
    row: dict[str, Any] = {"run": run.name if run else None, "model": getattr(summary, "model", None)}
    row |= {"status": run.status if run else None, "n": getattr(summary, "rows", None)}
    for name in scores:
        score = summary.scores.get(name) if summary else None
        row |= {f"score.{name}{part}": getattr(score, field, None) for part, field in _SCORE.items()}
        interval = score.interval if score else None
        row |= {f"score.{name}{part}": interval[index] if interval else None for index, part in enumerate(_ENDS)}
        if name in corrected:
            found = summary.corrected.get(name) if summary else None
            values = (found.mean, *found.interval, found.labels) if found else (None,) * 4
            row |= {f"score.{name}.corrected{part}": value for part, value in zip(("", *_ENDS, ".labels"), values, strict=True)}
    row |= {count: getattr(summary, count, None) for count in _COUNTS}
    for prefix, field in (("", "usage"), ("cached_", "usage_cached")):
        usage = getattr(summary, field, None)
        row |= {f"{prefix}{tokens}": getattr(usage, tokens, None) for tokens in ("prompt_tokens", "completion_tokens")}
    row |= {measure: getattr(summary, measure, None) for measure in ("cost_usd", "saved_usd", "wall_s")}
    row |= {f"latency_p{q}_s": quantile(latencies, q / 100) if latencies else None for q in (50, 95)}
    return row | {"first_token_p50_s": quantile(first_tokens, 0.5) if first_tokens else None}


def interval_in(row: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Return the interval of the score `name` in a row of `flat_run`; None without one."""
    low, high = (row.get(f"score.{name}{part}") for part in _ENDS)
    return None if low is None or high is None else (low, high)


def flat_cells(cells: Sequence[CellFacts], keys: Sequence[str], primary: str | None = None) -> list[dict[str, Any]]:
    """Return the table of a sweep: one row per cell, in their order, every row with the same columns.

    Columns: ``cell``, the varied `keys`, those of `flat_run` with every score that a cell has, ``rank``, ``standing``,
    ``judge`` (the number of its judge, where cells have different ones: both are then among the cells of that judge),
    ``score.PRIMARY.common`` (the mean that cells are ranked by: on the rows that all ranked cells have scored) and ``.common.n``
    (how many these are, if they are not all rows), ``same_as`` and ``same_as.n`` (see `runner.analysis.ranking.Standing`), and
    ``problem``. ``status`` is the cell's; where ``model`` is varied, that column has what was varied.
    """
    summaries = [cell.run.summary for cell in cells if cell.run and cell.run.summary]
    scores = list(dict.fromkeys(name for summary in summaries for name in summary.scores))
    rows, corrected = [], corrected_names(summaries)
    judges = any(cell.standing.judge for cell in cells)
    for cell in cells:
        varied = {key: cell.values.get(key) for key in keys}
        row = {"cell": cell.id, **varied, **flat_run(cell.run, scores, corrected)}
        row |= {"rank": cell.standing.rank, "standing": cell.standing.word}
        row |= {"judge": cell.standing.judge} if judges else {}
        if primary in scores:
            row |= {f"score.{primary}.common": cell.standing.mean, f"score.{primary}.common.n": cell.standing.rows}
        row |= {"same_as": cell.standing.same_as, "same_as.n": cell.standing.same}
        rows.append(row | varied | {"status": cell.status, "problem": cell.problem})
    return rows


def to_json(value: Any) -> str:
    """Return a value as JSON text."""
    return msgspec.json.encode(value).decode()
