"""Run an experiment, a sweep or a pipeline as a Prefect flow on the right server, and leave the flow run in its true state.

`run_experiment`, `run_sweep` and `run_pipeline` are the orchestrators of ``execution.orchestrator=prefect``, looked up by name.
Prefect is imported inside them, while a private server boots and the first rows are asked; its
settings, logging and environment are restored afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from flows import cells, quiet
from flows.ahead import ahead
from flows.connection import import_flow, pointed_at, reach
from flows.servers.choice import resolve
from flows.servers.private import PrivateServer
from runner.errors import OrchestratorError
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from prefect import Flow
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    from runner.experiment.experiment import Experiment
    from runner.pipelines.pipeline import Pipeline
    from runner.sweeps.sweep import Sweep

CANCEL_POLL_S = 2.0
"""How often a run polls whether it was cancelled in Prefect, which does not notify it."""
DRAIN_TIMEOUT_S = 30.0
"""How long Prefect may take to send its last events, and the server to record them."""
PAGE = 200
"""Task runs that a server tells at once."""


class Piece(Protocol):
    """An experiment, a sweep or a pipeline to run. Its flow finds it in this process by its folder."""

    folder: Path
    name: str
    overrides: list[str]


async def run_experiment(experiment: Experiment, *, notify: Callable[[str], None]) -> None:
    """Run what the experiment owes as one flow run, with a task per stage. No row waits for a server that has to start first.

    Raises as `run_as` does.
    """
    await run_as("flows.experiment:experiment_flow", experiment, notify=notify, meanwhile=lambda: ahead(experiment))


async def run_sweep(sweep: Sweep, *, notify: Callable[[str], None]) -> None:
    """Run the cells that the sweep owes as one flow run, with a task run per cell. No cell waits for a server that starts first.

    Raises as `run_as` does.
    """
    tasks = len(sweep.manifest.cells)
    await run_as("flows.sweep:sweep_flow", sweep, notify=notify, meanwhile=lambda: cells.ahead(sweep), tasks=tasks)


async def run_pipeline(pipeline: Pipeline, *, notify: Callable[[str], None]) -> None:
    """Run the stages of the pipeline as one flow run, with a task per stage. Raises as `run_as` does."""
    await run_as("flows.pipeline:pipeline_flow", pipeline, notify=notify)


async def run_as(
    target: str,
    piece: Piece,
    *,
    notify: Callable[[str], None],
    meanwhile: Callable[[], AbstractAsyncContextManager[None]] = contextlib.nullcontext,
    tasks: int = 1,
) -> None:
    """Run a piece as one run of a flow, whose parameters are the folder and the overrides.

    Args:
        target: the flow, ``module:name``; its module imports Prefect.
        piece: what is run.
        notify: called with each line for people: where to watch the run, and problems that do not end it.
        meanwhile: entered for the whole run if a private server has to start first: what goes on before it is up.
        tasks: how many task runs there will be, as far as it is known.

    Raises:
        OrchestratorError: no server is available, or it was lost during the run.
        asyncio.CancelledError: the run was cancelled, by the caller or in Prefect; the flow run is CANCELLED.
        Exception: whatever a stage raised, as it was raised; the flow run is FAILED.
    """
    choice = resolve()
    private = PrivateServer(tasks=tasks) if choice.api_url is None else None
    try:
        async with meanwhile() if private else contextlib.nullcontext():
            with quiet.environment():
                flow = await asyncio.to_thread(import_flow, target)
                with (
                    pointed_at(private.api_url if private else choice.api_url, own=choice.kind != "named"),
                    quiet.log_to(piece.folder / "run.log"),
                ):
                    if private:
                        await private.ready()
                        notify(f"Prefect: {private.ui_url} shows this run while it lasts (later: ostinato server start)")
                    else:
                        await reach(choice)
                        notify(f"Prefect: {redact(choice.api_url or '')}, from {choice.source}")
                    await _run(flow, piece, notify, private)
    finally:
        if private:
            await asyncio.to_thread(private.stop)


async def _run(flow: Flow[Any, Any], piece: Piece, notify: Callable[[str], None], private: PrivateServer | None) -> None:
    """Create the flow run, run it, and leave it in its true state."""
    import httpx
    from prefect import get_client
    from prefect.states import Cancelled, Pending

    try:
        async with get_client() as client:
            run = await client.create_flow_run(
                flow,
                name=piece.folder.name,
                parameters={"folder": str(piece.folder), "overrides": list(piece.overrides)},
                tags=["ostinato", piece.name],
                state=Pending(),
            )
            if private:
                await asyncio.to_thread(private.plays, str(run.id))
            playing = asyncio.create_task(_play(flow, run))
            watching = asyncio.create_task(_cancel_when_told(client, run.id, playing, notify))
            try:
                await playing
            except asyncio.CancelledError:
                with contextlib.suppress(httpx.HTTPError):  # without a server there is no state to set: the run ends anyway
                    await client.set_flow_run_state(run.id, Cancelled(message="The run was interrupted."), force=True)
                raise
            finally:
                watching.cancel()
                await _drain(client, run.id, notify, wait=private is not None)
    except httpx.HTTPError as error:
        raise OrchestratorError(
            f"The Prefect server failed during the run: {redact(str(error)) or type(error).__name__}\n"
            "Rows that were finished are in the record. Run the same command again: it asks only what is still owed."
        ) from error


async def _play(flow: Flow[Any, Any], run: FlowRun) -> None:
    """Run the flow in this task. Prefect pickles the exception of a failed flow to disk: here, to a temporary folder."""
    from prefect.flow_engine import run_flow_async

    with tempfile.TemporaryDirectory(prefix="ostinato-") as scratch:
        stored = flow.with_options(result_storage=Path(scratch))
        with quiet.signals_left_alone():
            await run_flow_async(stored, flow_run=run, parameters=run.parameters)


async def _cancel_when_told(
    client: PrefectClient, run_id: UUID, playing: asyncio.Task[None], notify: Callable[[str], None]
) -> None:
    """Poll for `prefect flow-run cancel`, which only sets a state, and cancel `playing` when it is found."""
    import httpx

    while True:
        await asyncio.sleep(CANCEL_POLL_S)
        with contextlib.suppress(httpx.HTTPError):  # the flow itself notices when the server is gone
            state = (await client.read_flow_run(run_id)).state
            if state and (state.is_cancelling() or state.is_cancelled()):
                notify("The run was cancelled in Prefect.")
                playing.cancel()
                return


async def _drain(client: PrefectClient, run_id: UUID, notify: Callable[[str], None], *, wait: bool) -> None:
    """Send Prefect's remaining events and, when the server is about to stop, wait until it has recorded the end of every task."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    from flows.begun import take_begun

    for worker in (EventsWorker, APILogWorker):
        await cast("Awaitable[Any]", worker.drain_all(timeout=DRAIN_TIMEOUT_S))
    left = take_begun(run_id)
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while wait and left:
        asked = left[-1:]
        while asked and (ended := await _ended(client, asked)):  # recorded in order: only if the last one is, are the others
            left = [task for task in left if task not in ended]
            asked = left[-PAGE:]
        if left and time.monotonic() > deadline:
            notify(f"Prefect's history shows {len(left)} task(s) of this run as unfinished; the run's own record is complete.")
            return
        if left:
            await asyncio.sleep(0.1)


async def _ended(client: PrefectClient, tasks: list[UUID]) -> set[UUID]:
    """Return which of these task runs, at most `PAGE`, the server has recorded as ended."""
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterId

    found = await client.read_task_runs(task_run_filter=TaskRunFilter(id=TaskRunFilterId(any_=tasks)))
    return {task.id for task in found if task.state and task.state.is_final()}
