"""Play runs on the workers that ``execution.workers`` names. Looked up by name in `runner.experiment.experiment`."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

from runner.workers.dask import Dask
from runner.workers.head import Head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from runner.config.schema.running import Workers
    from runner.experiment.experiment import Experiment
    from runner.types import Sample
    from runner.workers.engine import Engine, Link


async def on_dask(experiment: Experiment, keep: Callable[[list[Sample]], None]) -> None:
    """Play what an experiment owes on Dask workers. Raises as `Head.play`."""
    workers = experiment.config.execution.workers
    shared = _shared.get()
    engine: Engine = shared[1] if shared is not None and shared[0] == workers else _dask(workers)
    await Head(experiment, keep, engine, workers.n).play()


@contextlib.asynccontextmanager
async def sharing(workers: Workers) -> AsyncIterator[None]:
    """Have all runs within the block that name these workers play on one cluster. It starts with the first that owes anything."""
    if workers.kind is None:
        yield
        return
    shared = Shared(_dask(workers))
    token = _shared.set((workers, shared))
    try:
        yield
    finally:
        _shared.reset(token)
        await shared.end()


class Shared:
    """An engine for several runs, which none of them closes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._opening: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Open it, unless another run has. Raises LaunchError."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._engine.open())
        await asyncio.shield(self._opening)

    async def joined(self, known: Collection[str]) -> Link:
        """Wait for a worker that a run does not know."""
        return await self._engine.joined(known)

    async def close(self) -> None:
        """Leave it to the others."""

    async def end(self) -> None:
        """Close it, if any run has opened it."""
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
            await self._engine.close()


_shared: ContextVar[tuple[Workers, Shared] | None] = ContextVar("shared", default=None)


def _dask(workers: Workers) -> Dask:
    return Dask(workers.address, workers.n, workers.resources)
