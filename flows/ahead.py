"""Begin the stages of an experiment while its Prefect server boots. The tasks of its flow then wait for what is under way."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from runner.experiment.experiment import Experiment

Facts: TypeAlias = dict[str, Any]

_begun: dict[tuple[str, str], asyncio.Task[Facts | None]] = {}
"""Stages that are under way, by folder and name; each until its task takes it."""


@contextlib.asynccontextmanager
async def ahead(experiment: Experiment) -> AsyncIterator[None]:
    """Begin to launch the model and to ask what is owed. What no task has taken by the end of the block is given up."""
    folder = str(experiment.folder)
    launching: asyncio.Task[Facts | None] | None = None
    if experiment.needs_launch:
        launching = _begun[folder, "launch"] = asyncio.create_task(_launch(experiment))
    _begun[folder, "ask"] = asyncio.create_task(_ask(experiment, launching))
    try:
        yield
    finally:
        left = [task for name in ("launch", "ask") if (task := _begun.pop((folder, name), None))]
        if left:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            if launching is not None:
                await experiment.kill()


async def taken(folder: str, stage: str, begin: Callable[[], Awaitable[Facts]]) -> Facts:
    """Wait for a stage that is under way, or `begin` it. It raises what the stage raises; a second call begins it again."""
    begun = _begun.pop((folder, stage), None)
    found = await begun if begun is not None else None
    return found if found is not None else await begin()


async def _launch(experiment: Experiment) -> Facts | None:
    return await experiment.launch()


async def _ask(experiment: Experiment, launching: asyncio.Task[Facts | None] | None) -> Facts | None:
    """Ask once the model is up; return None if it could not be launched."""
    if launching is not None:
        await asyncio.wait({launching})
        if launching.cancelled() or launching.exception() is not None:
            return None
    return await experiment.ask()
