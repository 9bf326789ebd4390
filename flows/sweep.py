"""Define the flow of one sweep, with a task run per cell, by reference to the sweep's folder. What a cell does is runner's.

Prefect's engine needs 80 ms for a task, most of them in the server, and no cell may begin before the server knows it. So cells
run without it, and the flow tells the server about several at once, by the events that the engine sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

from prefect import flow  # noqa: TID253 - the home of Prefect; other modules import this one inside functions
from prefect.artifacts import acreate_table_artifact  # noqa: TID253
from prefect.client.schemas.objects import TaskRun  # noqa: TID253
from prefect.context import FlowRunContext  # noqa: TID253
from prefect.states import Completed, Crashed, Failed, Pending, Running  # noqa: TID253
from prefect.utilities.engine import emit_task_run_state_change_event  # noqa: TID253

from flows.begun import remember
from flows.cells import taken
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from uuid import UUID

    from prefect import State

    from flows.cells import CellRun, Cells
    from runner.sweeps.sweep import Sweep

NAME_LENGTH = 200
"""Characters of a cell's values in the name of its task run."""
TELL_S = 0.5
"""How often the server is told of the cells."""


def _attach(folder: str) -> Sweep:
    from runner.sweeps.sweep import attach_sweep

    return attach_sweep(folder)


@flow(name="ostinato-sweep", retries=0, persist_result=False)
async def sweep_flow(folder: str, overrides: list[str]) -> None:  # noqa: ARG001 - recorded as the run's parameter
    """Run the cells that the sweep in `folder` owes, or wait for those under way. The same `overrides` run it again."""
    sweep = _attach(folder)
    cells, running = taken(sweep)
    try:
        async with _telling(cells):
            await running
    finally:
        artifact = re.sub(r"[^a-z0-9]+", "-", f"cells-{sweep.name.lower()}").strip("-")
        await acreate_table_artifact(table=sweep.ranked(), key=artifact, description=f"Record: {folder}")


@contextlib.asynccontextmanager
async def _telling(cells: Cells) -> AsyncIterator[None]:
    """Tell the server within the block which cells run, and which have ended; at its end, tell it the rest."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    run_id = context.flow_run.id

    async def now_and_then() -> None:
        while True:
            _tell(cells.news(), run_id)
            await asyncio.sleep(TELL_S)

    telling = asyncio.create_task(now_and_then())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})
        _tell(cells.news(), run_id)


def _tell(news: Iterable[CellRun], run_id: UUID) -> None:
    """Tell the server how cells go. One that has ended before the server heard of it is recorded as ended, with its times."""
    for one in news:
        task_run, state = _recorded(one, run_id)
        emit_task_run_state_change_event(task_run=task_run, initial_state=Pending(), validated_state=state)
        remember(task_run)


def _recorded(one: CellRun, run_id: UUID) -> tuple[TaskRun, State[Any]]:
    """Return the task run of a cell, and its state."""
    times: Any = {"expected_start_time": one.began, "start_time": one.began, "end_time": one.ended}
    task_run = TaskRun(
        id=one.id,
        name=one.name[:NAME_LENGTH],
        flow_run_id=run_id,
        task_key="cell",
        dynamic_key=str(one.number),
        run_count=1,
        flow_run_run_count=1,
        **times,
    )
    if one.ended is None:
        return task_run, Running(timestamp=one.began)
    task_run.total_run_time = one.ended - one.began
    match one.state:
        case "failed":
            return task_run, Failed(timestamp=one.ended, message=redact(one.problem or ""))
        case "stopped":
            return task_run, Crashed(timestamp=one.ended, message="The run was interrupted.")
        case _:
            return task_run, Completed(timestamp=one.ended)
