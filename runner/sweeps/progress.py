"""The progress of a sweep in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runner.wording.numbers import dollars

if TYPE_CHECKING:
    from runner.batch.tally import Tally


class Progress(NamedTuple):
    """The progress of a sweep; `str` of it describes the running cells.

    Attributes:
        cells: cells known so far.
        ended: those of them that have ended, now or earlier.
        done: samples of the running cells that need not be asked any more, out of `rows`.
        errors: samples of these cells that failed.
        cost_usd: dollars that these cells have cost so far.
    """

    cells: int
    ended: int
    done: int
    rows: int
    errors: int
    cost_usd: float

    @classmethod
    def of(cls, statuses: list[str], tallies: list[Tally]) -> Progress:
        """Return the progress, from the status of each cell and the totals of those that run."""
        return cls(
            cells=len(statuses),
            ended=sum(status not in ("pending", "running") for status in statuses),
            done=sum(tally.done for tally in tallies),
            rows=sum(tally.rows for tally in tallies),
            errors=sum(tally.status["error"] for tally in tallies),
            cost_usd=sum(tally.known_usd for tally in tallies),
        )

    def __str__(self) -> str:
        spent = f", {dollars(self.cost_usd)}" if self.cost_usd else ""
        return f"{self.done:,}/{self.rows:,} rows of the running cells, {self.errors:,} errors{spent}"
