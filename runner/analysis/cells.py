"""Rank the cells of a sweep by the primary score and mark those tied with the best: for the terminal, ``--json`` and Prefect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.analysis.load import Sweep
from runner.stats.ties import row_means, tied

if TYPE_CHECKING:
    from runner.analysis.load import Cell
    from runner.records import SweepFolder


def ranked(sweep: SweepFolder) -> list[dict[str, Any]]:
    """Return the rows of `Sweep.table` with ``best`` and ``tied``, best first by the primary score, those without it last.

    ``tied``: the difference to the best, row by row, is not significant (see `runner.stats.ties`); None: unknown.
    Varied values that are lists or mappings are JSON text.
    """
    found = Sweep(sweep)
    rows = [{**row, **{key: _plain(row[key]) for key in found.keys}, "best": False, "tied": None} for row in found.table()]
    primary = found.primary or ""
    column = f"score.{primary}"
    scored = [row for row in rows if row.get(column) is not None]
    scored.sort(key=lambda row: float(row[column]), reverse=found.direction == "maximize")
    if not scored:
        return rows
    cells = {cell.id: cell for cell in found.cells}
    best = scored[0]
    best["best"] = True
    means = _row_means(cells[best["cell"]], primary)
    for row in scored[1:]:
        row["tied"] = tied(means, _row_means(cells[row["cell"]], primary))
    return [*scored, *(row for row in rows if row not in scored)]


def _row_means(cell: Cell, score: str) -> dict[str, float]:
    samples = cell.run.samples() if cell.run else ()
    return row_means((sample.id, sample.scores[score]) for sample in samples if score in sample.scores)


def _plain(value: Any) -> Any:
    """Return a value for one field of a table: lists and mappings as JSON."""
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value
