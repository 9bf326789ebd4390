"""How samples ended, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ADVICE = "ask failed rows again (ostinato retry), or say how they count (ostinato score RUN scoring.refused=zero)"
"""Advice about samples that were left out of the scores."""

ADVICE_FOR_CELLS = (
    "ask failed rows again (ostinato resume SWEEP), or say how they count (ostinato score SWEEP scoring.refused=zero)"
)
"""The same for the cells of a sweep."""

PARTIAL = "less than nine tenths of the samples are scored, so the cell is not ranked"
"""Why a cell is partial: see `runner.analysis.ranking`."""

JUDGES = (
    "scores of different judges (rubric, form, model or model served) are not compared, so cells are ranked among those of one "
    "judge, and none is the best of all; judge all by one: ostinato score SWEEP scoring=..."
)
"""Why no cell is the best: see `runner.analysis.ranking`."""

COUNTS = {
    "scored": "scored",
    "errors": "errors",
    "refused": "refused",
    "truncated": "cut off",
    "empty": "empty",
    "invalid": "invalid",
    "owed": "owed",
}
"""Headings of the counts of samples that did not end as they should, by their names in a summary."""

_WORDS = {"error": "failed", "truncated": "cut off", "ok": "answered"}


def counted(counts: Mapping[str, int]) -> str:
    """Write counts of samples by status: ``3 failed, 1 cut off``; nothing for none."""
    return ", ".join(f"{count:,} {_WORDS.get(status, status)}" for status, count in counts.items() if count)


def standing(row: Mapping[str, Any]) -> str:
    """Write where the cell of a row of the table stands: ``best``, ``best, 3 left out``, ``tied``, ``partial``, or nothing.

    Where cells have different judges, it is said by whose scores: ``best by judge 2``, ``judge 2``.
    """
    word, left_out = row["standing"] or "", (row["n"] or 0) - (row["scored"] or 0)
    lacking = f", {left_out:,} left out" if word in ("best", "tied") and left_out else ""
    if judge := row.get("judge"):
        word = f"{word} by judge {judge}" if word else f"judge {judge}"
    return f"{word}{lacking}"


def columns_of(rows: Sequence[Mapping[str, Any]], *, always: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the counts of `COUNTS` that a table of cells shows, with their headings: those that say something, and `always`."""

    def says(name: str) -> bool:
        return any(row[name] is not None and row[name] != (row["n"] if name == "scored" else 0) for row in rows)

    return {name: heading for name, heading in COUNTS.items() if name in always or says(name)}
