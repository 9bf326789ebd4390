"""Records as flat rows, for tables: a sample as one row, and a run or a sweep's cell as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.stats.stats import quantile
from runner.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runner.analysis.load import Cell, Run
    from runner.types import Sample

_SCORE = {"": "mean", ".stderr": "stderr", ".n": "n"}
_COUNTS = ("ok", "errors", "refused", "truncated", "invalid", "owed", "cache_hits", "requests")
_ERROR = ("code", "message", "status", "request_id")


def score_names(samples: Iterable[Sample]) -> list[str]:
    """The names of all scores, in order of appearance."""
    return list({name: None for sample in samples for name in sample.scores})


def flat_sample(sample: Sample, scores: Sequence[str]) -> dict[str, Any]:
    """A sample as one row, whose columns only depend on `scores`.

    Columns: ``id``, ``repeat``, ``status``, ``score.NAME`` for each of `scores`, ``output``, ``target``, ``parsed``, ``messages``
    or ``prompt``, ``error.code|message|status|request_id``, ``usage.prompt_tokens`` and the other kinds of token,
    then the other fields of `runner.types.Sample`. Unknown is None. The data's own columns are not recorded: join them by ``id``.
    """
    row: dict[str, Any] = {"id": sample.id, "repeat": sample.repeat, "status": sample.status}
    row |= {f"score.{name}": sample.scores.get(name) for name in scores}
    row |= {"output": sample.output, "target": sample.target, "parsed": sample.parsed}
    row |= {"messages": sample.messages, "prompt": sample.prompt}
    row |= {f"error.{field}": getattr(sample.error, field, None) for field in _ERROR}
    row |= {f"usage.{field}": getattr(sample.usage, field, None) for field in Usage.__struct_fields__}
    taken = {"scores", "error", "usage", *row}
    return row | {field: getattr(sample, field) for field in type(sample).__struct_fields__ if field not in taken}


def flat_run(run: Run, scores: Sequence[str] | None = None) -> dict[str, Any]:
    """A run as one row: counts, scores with standard error and n, tokens, cost (dollars) and latency (seconds).

    A run that has no summary yet has its status alone; all columns are there, and the others None.
    """
    summary = run.summary
    latencies = sorted(sample.latency_s for sample in run.samples() if sample.latency_s is not None) if summary else []
    row: dict[str, Any] = {"run": run.name, "model": getattr(summary, "model", None), "status": run.manifest.get("status")}
    row["n"] = getattr(summary, "rows", None)
    for name in (summary.scores if summary else ()) if scores is None else scores:
        score = summary.scores.get(name) if summary else None
        row |= {f"score.{name}{part}": getattr(score, field, None) for part, field in _SCORE.items()}
    row |= {count: getattr(summary, count, None) for count in _COUNTS}
    row |= {tokens: getattr(summary.usage, tokens) if summary else None for tokens in ("prompt_tokens", "completion_tokens")}
    row |= {measure: getattr(summary, measure, None) for measure in ("cost_usd", "saved_usd", "wall_s")}
    return row | {f"latency_p{q}_s": quantile(latencies, q / 100) if latencies else None for q in (50, 95)}


def flat_cell(cell: Cell, keys: Sequence[str], scores: Sequence[str]) -> dict[str, Any]:
    """A sweep's cell as one row: its id, what was varied, `flat_run` of its run, and what the sweep says of its status."""
    facts = flat_run(cell.run, scores) if cell.run else {}
    varied = {key: cell.values.get(key) for key in keys}
    return {"cell": cell.id, **varied, **facts, "status": cell.status, "problem": cell.problem}


def to_json(value: Any) -> str:
    """A value as JSON text."""
    return msgspec.json.encode(value).decode()
