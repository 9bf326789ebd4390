"""Define the flow of one turn of a schedule, which Prefect's worker starts when it is due. What a turn does is runner's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_client, tags  # noqa: TID253 - a home of Prefect; other modules import this one inside functions
from prefect.client.schemas.objects import FlowRunPolicy  # noqa: TID253
from prefect.context import FlowRunContext  # noqa: TID253
from prefect.exceptions import TerminationSignal  # noqa: TID253
from prefect.logging import get_run_logger  # noqa: TID253
from prefect.runtime import flow_run as this_run  # noqa: TID253

from flows.experiment import experiment_flow
from flows.schedules.contents import fetch
from flows.schedules.process import played_in_process
from runner.errors import CanaryFailed, OstinatoError
from runner.schedules.job import Job, Turn
from runner.schedules.notify import notify
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from prefect import Flow, State
    from prefect.client.schemas.objects import FlowRun

    from runner.experiment.experiment import Experiment

FORMAT = 1
"""Version of the JSON object that reports a failed run."""


def _tell(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - as Prefect calls it
    """Report a turn that has failed for good to the schedule's command and webhook. Prefect calls it in the run or the worker."""
    job = Job.of(flow_run.parameters["job"])
    place = job.place
    with contextlib.chdir(place) if place.is_dir() else contextlib.nullcontext():
        record = job.record_of(str(flow_run.id))
        payload = {
            "format": FORMAT,
            "event": state.type.value.lower(),
            "schedule": job.name,
            "what": job.schedule.what,
            "flow_run": str(flow_run.id),
            "due": flow_run.expected_start_time.isoformat() if flow_run.expected_start_time else None,
            "tries": flow_run.run_count,
            "folder": str(place),
            "run": str(record.path) if record else None,
            "problem": state.message,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        for problem in notify(payload, command=job.schedule.notify.command, webhook_env=job.schedule.notify.webhook_env):
            _say(problem)


def _title() -> str:
    due = this_run.get_scheduled_start_time()
    return f"{this_run.get_parameters()['job']['name']} {due:%Y-%m-%d %H:%M:%S}"


@flow(name="ostinato-schedule", flow_run_name=_title, persist_result=False, on_failure=[_tell], on_crashed=[_tell])
async def scheduled(job: dict[str, Any]) -> None:
    """Run one turn of a schedule. `job` is a `runner.schedules.job.Job` as plain JSON."""
    logging.raiseExceptions = False  # else Prefect tells the terminal when it cannot send a line
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    run, wanted = context.flow_run, Job.of(job)
    policy = wanted.schedule
    await _allow_retries(run.id, policy.retries, policy.retry_delay_s)
    async with get_client() as client:
        await fetch(client, wanted)
    wanted.place.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(wanted.files), _redacted(), played_in_process(_say):
        turn = Turn(
            job=wanted,
            config=wanted.config(),
            flow_run=str(run.id),
            due=run.expected_start_time.isoformat() if run.auto_scheduled and run.expected_start_time else None,
            attempt=run.run_count,
            orchestrate=_as_subflow,
            notify=_say,
        )
        try:
            await turn.run()
        except CanaryFailed:
            await _allow_retries(run.id, 0, 0)
            raise


async def _as_subflow(experiment: Experiment, *, notify: Any) -> None:  # noqa: ARG001 - the parent run says where it can be watched
    """Run the stages as a flow run below this one. Prefect pickles errors to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ostinato-") as scratch, tags("ostinato", experiment.name):
        stages = experiment_flow.with_options(flow_run_name=experiment.folder.name, result_storage=Path(scratch))
        try:
            await stages(str(experiment.folder), list(experiment.overrides))
        except TerminationSignal as error:  # raised by Prefect in a task that is cancelled with its run
            raise asyncio.CancelledError from error


async def _allow_retries(run_id: UUID, retries: int, delay_s: float) -> None:
    """Set how often Prefect retries this run: the schedule decides it, not the flow."""
    async with get_client() as client:
        await client.update_flow_run(run_id, empirical_policy=FlowRunPolicy(retries=retries, retry_delay=round(delay_s)))


@contextlib.contextmanager
def _redacted() -> Iterator[None]:
    """Remove secrets from errors before the server records them."""
    try:
        yield
    except OstinatoError as error:
        raise type(error)(redact(str(error))) from None


def _say(line: str) -> None:
    """Write a line for people to the run's log on the server and to the worker's terminal."""
    safe = redact(line)
    with contextlib.suppress(Exception):
        get_run_logger().info(safe)
    print(f"{datetime.now().astimezone():%H:%M:%S}  {safe}", file=sys.stderr, flush=True)
