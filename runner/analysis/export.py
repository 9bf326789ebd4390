"""Records for other tools: CSV, JSON lines, Parquet, Markdown, JUnit XML. One row per sample of a run, or per cell of a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runner.analysis import frames as tables
from runner.analysis.delimited import csv_lines, in_columns
from runner.analysis.flat import corrected_names, flat_run, interval_in, to_json
from runner.analysis.load import Run, Sweep
from runner.errors import ConfigError
from runner.secrets import redacted
from runner.types import Score
from runner.wording.numbers import dollars, mean, score_in_full, seconds
from runner.wording.statuses import columns_of, standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import BinaryIO

Format = Literal["csv", "parquet", "jsonl", "md", "junit", "every-eval-ever", "openai-batch", "openai-finetuning"]


def export(record: Run | Sweep, to: Format, file: BinaryIO, *, exact: bool = False) -> None:
    """Write a record in another format; what looks like a secret is masked.

    Args:
        record: a run or a sweep.
        to: ``csv``, ``jsonl`` and ``parquet``: one row per sample (sweep: per cell), see `runner.analysis.flat`. ``md``: one row
            per run (sweep: per cell). ``junit``: one test case per sample, see `runner.analysis.junit`. The others are of runs
            alone, see `runner.analysis.interchange`.
        file: the output, in bytes; text is UTF-8.
        exact: leave text in CSV as it is. Otherwise a ``'`` precedes text that a spreadsheet would run as a formula.

    Raises:
        ConfigError: polars, which Parquet needs, is not installed; a format of runs is asked of a sweep.
    """
    match to:
        case "parquet":
            tables.write_parquet(map(redacted, record.table()), file)
            return
        case "csv":
            parts = record.columns() if isinstance(record, Run) else in_columns(record.table())
            lines = csv_lines(parts, exact=exact)
        case "jsonl":
            lines = (to_json(row) + "\n" for row in map(redacted, record.table()))
        case "md":
            lines = _markdown(record)
        case "junit":
            from runner.analysis.junit import junit  # here, because it loads an XML library, which loads an HTTP client

            lines = junit(record)
        case _:
            lines = _of_run(record, to)
    file.writelines(line.encode() for line in lines)


def _of_run(record: Run | Sweep, to: Format) -> Iterator[str]:
    """Yield a run in a format that others read."""
    from runner.analysis import interchange

    if not isinstance(record, Run):
        raise ConfigError(f"--to {to} writes one run; name one of {record.folder / 'cells'}")
    if to == "every-eval-ever":
        return iter([msgspec.json.format(to_json(redacted(interchange.every_eval_ever(record))), indent=2) + "\n"])
    rows = interchange.batch(record) if to == "openai-batch" else interchange.finetuning(record)
    return interchange.lines_of(map(redacted, rows))


def _markdown(record: Run | Sweep) -> Iterator[str]:
    """Yield a table with one row per run or cell: varied values, scores with interval and n, what they stand on, and cost."""
    rows = [redacted(row) for row in ([_run_row(record)] if isinstance(record, Run) else record.table())]
    varied = [] if isinstance(record, Run) else record.keys
    counts = columns_of(rows, always=("errors",))
    common = any(value is not None for row in rows for name, value in row.items() if name.endswith(".common.n"))
    lines = [_markdown_row(row, varied, counts, common=common) for row in rows]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = set(varied) | {"run", "model", "status", "standing"}
    yield f"| {' | '.join(map(_escaped, columns))} |\n"
    yield f"|{'|'.join(' --- ' if name in text else ' ---: ' for name in columns)}|\n"
    for line in lines:
        yield f"| {' | '.join(_escaped(line.get(name, '–')) for name in columns)} |\n"


def _run_row(run: Run) -> dict[str, Any]:
    return flat_run(run.facts(), list(run.summary.scores) if run.summary else [], corrected_names([run.summary]))


def _markdown_row(row: dict[str, Any], varied: Iterable[str], counts: Mapping[str, str], *, common: bool) -> dict[str, str]:
    cells = {key: _plain(row.get(key)) for key in varied} or {name: _plain(row.get(name)) for name in ("run", "model")}
    cells["status"] = _plain(row.get("status"))
    for name in [name for name in row if name.startswith("score.") and f"{name}.stderr" in row]:
        score = name.removeprefix("score.")
        found = Score(row[name], row[f"{name}.stderr"], row[f"{name}.n"] or 0, interval_in(row, score))
        cells[score] = "–" if found.mean is None else score_in_full(found)
        if f"{name}.corrected" in row:
            low, high = (row.get(f"{name}.corrected.{end}") for end in ("low", "high"))
            cells[f"{score}, corrected"] = mean(row[f"{name}.corrected"], None if low is None or high is None else (low, high))
        if f"{name}.common" in row and common:
            cells["ranked by"] = mean(row[f"{name}.common"])
    if "standing" in row:
        cells["standing"] = standing(row) or "–"
    cells |= {"samples": _plain(row.get("n"))} | {heading: _plain(row.get(name)) for name, heading in counts.items()}
    cells |= {"tokens in": _plain(row.get("prompt_tokens")), "tokens out": _plain(row.get("completion_tokens"))}
    cells["cost"] = "–" if (cost := row.get("cost_usd")) is None else dollars(cost)
    for q in (50, 95):
        cells[f"p{q}"] = seconds(row.get(f"latency_p{q}_s"))
    return cells


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else to_json(value)


def _escaped(text: str) -> str:
    """Return text for a cell: on one line, with markup escaped."""
    flat = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in "\\|`*_<>[]" else sign for sign in flat)
