"""Define the flow of one sweep: a task per cell, by reference to the sweep's folder. What a cell does, and when, is runner's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prefect import flow, task  # noqa: TID253 - the home of Prefect; other modules import this one inside functions
from prefect.artifacts import acreate_table_artifact  # noqa: TID253
from prefect.cache_policies import NO_CACHE  # noqa: TID253

from flows.begun import note
from flows.untagged import untagged

if TYPE_CHECKING:
    from runner.sweeps.sweep import Sweep

NAME_LENGTH = 200
"""Characters of a cell's values in the name of its task."""


def _attach(folder: str) -> Sweep:
    from runner.sweeps.sweep import attach_sweep

    return attach_sweep(folder)


# Rows retry inside the engine and results are the record on disk, so no task retries, caches or persists anything.
@task(name="cell", retries=0, cache_policy=NO_CACHE, persist_result=False, on_running=[note])
async def cell(folder: str, key: str) -> None:
    """Run one cell. It fails if none of its requests was answered."""
    await _attach(folder).run_cell(key)


@flow(name="ostinato-sweep", retries=0, persist_result=False)
async def sweep_flow(folder: str, overrides: list[str]) -> None:  # noqa: ARG001 - recorded as the run's parameter
    """Run the cells that the sweep in `folder` owes. The same `overrides` run it again."""
    sweep = _attach(folder)

    async def play(key: str) -> None:
        named = cell.with_options(task_run_name=sweep.label(key)[:NAME_LENGTH])
        await named(folder, key)

    try:
        with untagged():
            await sweep.drive(play)
    finally:
        artifact = re.sub(r"[^a-z0-9]+", "-", f"cells-{sweep.name.lower()}").strip("-")
        await acreate_table_artifact(table=sweep.ranked(), key=artifact, description=f"Record: {folder}")
