"""The cells of a sweep ranked by the primary score, best first: what the terminal and JSON show, and which cells are tied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.stats.stats import quantile
from runner.stats.ties import row_means, tied

if TYPE_CHECKING:
    from runner.records import RunFolder, Summary, SweepFolder
    from runner.records.sweep import CellRecord


def rows_of(sweep: SweepFolder) -> list[dict[str, Any]]:
    """One row a cell, in the manifest's order; what a cell does not have is None. Every row has every column.

    Columns: ``cell``, ``status``, the varied keys, ``rows``, ``ok``, ``errors``, for each score ``score.NAME`` (its mean)
    with ``.stderr`` and ``.n``, ``requests``, ``cache_hits``, tokens and ``cost_usd`` of requests made, tokens of answers
    from the cache, ``latency_p50_s`` and ``latency_p95_s`` (seconds, of requests made), ``run``, ``problem``.
    """
    manifest = sweep.read()
    rows = []
    for key, cell in manifest.cells.items():
        values = {name: _plain(cell.values.get(name)) for name in manifest.keys}
        run = sweep.run_of(cell)
        measured = _measured(run) if run else {}
        rows.append({"cell": key, "status": cell.status, **values, **measured, "run": cell.run, "problem": cell.problem})
    last = ("run", "problem")
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in last]
    return [{name: row.get(name) for name in (*columns, *last)} for row in rows]


def ranked(sweep: SweepFolder) -> list[dict[str, Any]]:
    """The rows of `rows_of`, best first by the primary score, those without it last; with ``best`` and ``tied`` in each.

    ``tied``: the difference to the best, row by row, may as well be zero (see `runner.stats.ties`). None: nothing is known.
    """
    manifest = sweep.read()
    rows = [{**row, "best": False, "tied": None} for row in rows_of(sweep)]
    primary = manifest.primary or ""
    column = f"score.{primary}"
    scored = [row for row in rows if row.get(column) is not None]
    scored.sort(key=lambda row: float(row[column]), reverse=manifest.direction == "maximize")
    if not scored:
        return rows
    means = {row["cell"]: _row_means(sweep, manifest.cells[row["cell"]], primary) for row in scored}
    scored[0]["best"] = True
    for row in scored[1:]:
        row["tied"] = tied(means[scored[0]["cell"]], means[row["cell"]])
    return [*scored, *(row for row in rows if row not in scored)]


def _measured(run: RunFolder) -> dict[str, Any]:
    """What a run has come to, by its summary and the latencies of its samples."""
    summary = run.summary()
    if summary is None:
        return {}
    latencies = sorted(sample.latency_s for sample in run.samples() if sample.latency_s is not None)
    return {
        "rows": summary.rows,
        "ok": summary.ok,
        "errors": summary.errors,
        **_scores(summary),
        "requests": summary.requests,
        "cache_hits": summary.cache_hits,
        "prompt_tokens": summary.usage.prompt_tokens,
        "completion_tokens": summary.usage.completion_tokens,
        "cached_prompt_tokens": summary.usage_cached.prompt_tokens,
        "cached_completion_tokens": summary.usage_cached.completion_tokens,
        "cost_usd": summary.cost_usd,
        "latency_p50_s": quantile(latencies, 0.5) if latencies else None,
        "latency_p95_s": quantile(latencies, 0.95) if latencies else None,
        "wall_s": summary.wall_s,
    }


def _scores(summary: Summary) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, score in summary.scores.items():
        found |= {f"score.{name}": score.mean, f"score.{name}.stderr": score.stderr, f"score.{name}.n": score.n}
    return found


def _row_means(sweep: SweepFolder, cell: CellRecord, score: str) -> dict[str, float]:
    run = sweep.run_of(cell)
    return row_means((sample.id, sample.scores[score]) for sample in run.samples() if score in sample.scores) if run else {}


def _plain(value: Any) -> Any:
    """A value for one field of a table: lists and mappings as JSON."""
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value
