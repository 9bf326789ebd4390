"""Note how the cells of a sweep go, for Prefect, which may learn of them later, and of many at once."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from runner.errors import OstinatoError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runner.sweeps.sweep import Sweep

_ahead: dict[str, tuple[Cells, asyncio.Task[None]]] = {}
"""Sweeps whose cells run already, by folder; each until its flow takes it."""


class CellRun:
    """One run of a cell.

    Attributes:
        id: of its task run.
        number: counts the runs of cells, from 0.
        name: the varied values, in one line.
        began: when it began.
        ended: when it ended; None while it runs.
        state: of its task.
        problem: why it failed.
    """

    def __init__(self, number: int, name: str) -> None:
        self.id = uuid4()
        self.number = number
        self.name = name
        self.began = datetime.now(UTC)
        self.ended: datetime | None = None
        self.state: Literal["running", "completed", "failed", "stopped"] = "running"
        self.problem: str | None = None

    def end(self, state: Literal["completed", "failed", "stopped"], problem: str | None = None) -> None:
        """Note how it ended."""
        self.ended, self.state, self.problem = datetime.now(UTC), state, problem


class Cells:
    """Run the cells of a sweep, and note how each one goes.

    Args:
        sweep: whose cells these are.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._begun = 0
        self._news: dict[int, CellRun] = {}

    async def run(self, key: str) -> None:
        """Run a cell. Raises as `Sweep.run_cell` does."""
        one = CellRun(self._begun, self._sweep.label(key))
        self._begun += 1
        self._news[one.number] = one
        try:
            await self._sweep.run_cell(key)
        except OstinatoError as error:
            one.end("failed", str(error))
            raise
        except asyncio.CancelledError:
            one.end("stopped")
            raise
        else:
            one.end("completed")
        finally:
            self._news[one.number] = one

    def news(self) -> list[CellRun]:
        """Return the cells that have begun or ended since the last call. A cell that has done both is in it once."""
        news, self._news = self._news, {}
        return list(news.values())


@contextlib.asynccontextmanager
async def ahead(sweep: Sweep) -> AsyncIterator[None]:
    """Begin to run the cells that a sweep owes. What its flow has not taken by the end of the block is cancelled."""
    folder, cells = str(sweep.folder), Cells(sweep)
    running = asyncio.create_task(sweep.drive(cells.run))
    _ahead[folder] = cells, running
    try:
        yield
    finally:
        if _ahead.pop(folder, None):
            running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def taken(sweep: Sweep) -> tuple[Cells, asyncio.Task[None]]:
    """Return the cells of a sweep, and the task that runs them: what is under way, or else what begins now."""
    if (found := _ahead.pop(str(sweep.folder), None)) is not None:
        return found
    cells = Cells(sweep)
    return cells, asyncio.create_task(sweep.drive(cells.run))
