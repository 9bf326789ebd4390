"""The cells of a sweep, best first, for the terminal, ``--json`` and Prefect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.analysis.load import Sweep

if TYPE_CHECKING:
    from runner.records import SweepFolder


def ranked(sweep: SweepFolder) -> list[dict[str, Any]]:
    """Return the rows of `Sweep.table` with ``best`` and ``tied``, in the order of `Sweep.ranking`.

    ``best``: of all cells; none is, if they have different judges.
    ``tied``: the difference to the best, row by row, is not significant (see `runner.stats.ties`); None: unknown.
    Varied values that are lists or mappings are JSON text.
    """
    found = Sweep(sweep)
    rows = {row["cell"]: {**row, **{key: _plain(row[key]) for key in found.keys}} for row in found.table()}
    return [{**rows[cell], "best": standing.is_best, "tied": standing.tied} for cell, standing in found.ranking.items()]


def _plain(value: Any) -> Any:
    """Return a value for one field of a table: lists and mappings as JSON."""
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value
