"""Apply, list, pause, resume, run and remove schedules, which are Prefect deployments. One work pool serves them all."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.schedules.contents import discard, put
from flows.schedules.times import SHOWN, ended, plain, upcoming
from flows.schedules.times import plan as planned
from runner.errors import ConfigError, ScheduleError
from runner.schedules.places import folder_of

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

    from flows.schedules.times import Plan
    from runner.schedules.content import Content
    from runner.schedules.job import Job

ENTRYPOINT = "flows.schedules.turn.scheduled"
"""Where the flow of a schedule is, as every deployment stores it."""
FLOW = "ostinato-schedule"
HORIZON = timedelta(days=99)
"""How far ahead a server plans: 100 days, unless its PREFECT_SERVER_SERVICES_SCHEDULER_MAX_SCHEDULED_TIME says otherwise."""
PLANNED_WITHIN = timedelta(minutes=2)
"""How long a server may take to plan the runs of a schedule that was changed."""
PATIENCE_S = 60.0
"""How long `remove` waits for the current run."""
POOL = "ostinato"
"""The work pool, of Prefect's type ``process``. `ostinato serve` and ``prefect worker start --pool ostinato`` serve it."""


async def apply(job: Job, content: Content) -> Plan:
    """Create the schedule, or replace the one of that name. It is active afterwards, and its first runs are planned.

    Args:
        job: what its turns do.
        content: what they need for it.

    Returns:
        When it plays, with the dates that the server has planned.

    Raises:
        ConfigError: the times cannot be parsed or never come, another folder has a schedule of that name, there is no such pool,
            or the content is too large.
        ScheduleError: the server cannot plan them.
    """
    from prefect import get_client
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType

    from flows.schedules.process import ENVIRONMENT
    from flows.schedules.turn import scheduled

    plan = planned(job.schedule, datetime.now(UTC))
    strategies = {"skip": ConcurrencyLimitStrategy.CANCEL_NEW, "queue": ConcurrencyLimitStrategy.ENQUEUE}
    deployment = RunnerDeployment.from_flow(
        scheduled,
        name=job.name,
        schedules=[plan.times],
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategies[job.schedule.overlap]),
        parameters={"job": job.parameters()},
        tags=["ostinato", job.experiment],
        version=job.config_hash[:12],
        description=f"`{' '.join(job.overrides)}`",
        work_pool_name=job.schedule.pool or POOL,
        job_variables={"env": ENVIRONMENT},
        entrypoint_type=EntrypointType.MODULE_PATH,
        paused=False,
    )
    async with get_client() as client:
        await _require_pool(client, job.schedule.pool)
        for known in await _read(client, job.name):
            _refuse_other(job, known.parameters.get("job", {}))
        await put(client, job, content)
        return await _with_dates_of_server(client, await deployment.aapply(), plan)


async def _with_dates_of_server(client: PrefectClient, known: UUID, plan: Plan) -> Plan:
    """Have the server plan the first runs at once, and return the plan with their dates. Its scheduler would take seconds."""
    from httpx import HTTPStatusError
    from prefect import __version__

    try:
        await client.request("POST", "/deployments/{id}/schedule", path_params={"id": known}, json={})
    except HTTPStatusError as error:
        raise ScheduleError(f"the schedule was applied, but the server cannot plan it ({error}); its log says why") from None
    zone = plan.dates[0].tzinfo
    waiting = await _waiting(client, known, SHOWN)
    dates = [plain(run.expected_start_time).astimezone(zone) for run in waiting if run.expected_start_time]
    if not dates and plan.dates[0] < datetime.now(UTC) + HORIZON:
        raise ScheduleError(
            f"the schedule was applied, but the server planned no run of it, although {plan.dates[0]} is due; its log says why"
        )
    remarks = plan.remarks
    if (version := await client.api_version()) != __version__:
        remarks = [*remarks, f"the server is Prefect {version}, and Prefect {__version__} is installed here; the server decides"]
    later = [date for date in plan.dates if not dates or date > dates[-1]]
    return plan._replace(dates=[*dates, *later][:SHOWN], remarks=remarks)


def _refuse_other(job: Job, known: dict[str, Any]) -> None:
    """Refuse to replace a schedule that was applied in another folder, or on another machine."""
    folder = known.get("folder")
    if folder is None and (origin := known.get("origin")):
        folder = folder_of(origin)
        if origin == job.origin:
            return
    if folder is None or str(folder) != str(Path.cwd()):
        raise ConfigError(
            f"the schedule '{job.name}' already exists, for {folder or 'a folder of another machine'}; give schedule.name=..., "
            f"or remove the other one: ostinato schedule rm {job.name}"
        )


async def _require_pool(client: PrefectClient, pool: str | None) -> None:
    """Make our own pool if there is none. Raises ConfigError if another one does not exist."""
    from prefect.exceptions import ObjectNotFound

    if pool in (None, POOL):
        await ensure_pool(client)
        return
    try:
        await client.read_work_pool(pool)
    except ObjectNotFound:
        raise ConfigError(
            f"schedule.pool: the server has no work pool '{pool}'; make it: prefect work-pool create --type docker {pool}"
        ) from None


async def ensure_pool(client: PrefectClient) -> None:
    """Create the work pool unless it exists."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        await client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        try:
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            return  # by another `apply`, just now


async def adopt(client: PrefectClient) -> int:
    """Make the schedules that another version of Ostinato applied run this version's flow. Returns how many there were.

    Missed runs stay. Prefect creates future runs again within about five seconds.
    """
    from prefect.client.schemas.actions import DeploymentUpdate

    found = [deployment for deployment in await _read(client) if deployment.entrypoint != ENTRYPOINT]
    for deployment in found:
        await client.update_deployment(deployment.id, DeploymentUpdate(entrypoint=ENTRYPOINT))
    return len(found)


async def listed() -> list[dict[str, Any]]:
    """Return every schedule as plain JSON, sorted by name. Times are ISO 8601, or None."""
    from prefect import get_client

    async with get_client() as client:
        return [await _facts(client, deployment) for deployment in await _read(client)]


async def pause(name: str) -> None:
    """Start no more runs until `resume`; a current one continues. Raises ConfigError if there is no such schedule."""
    from prefect import get_client

    async with get_client() as client:
        await client.pause_deployment((await _named(client, name)).id)


async def resume(name: str) -> None:
    """Start runs again. Raises ConfigError if there is no such schedule."""
    from prefect import get_client

    async with get_client() as client:
        deployment = await _named(client, name)
        for times in deployment.schedules:
            if not times.active:  # Prefect's UI switches off the times of a deployment, not the deployment
                await client.update_deployment_schedule(deployment.id, times.id, active=True)
        await client.resume_deployment(deployment.id)


async def run_now(name: str) -> str:
    """Request a run at once. Returns the flow run's id. Raises ConfigError if there is no such schedule."""
    from prefect import get_client

    async with get_client() as client:
        run = await client.create_flow_run_from_deployment((await _named(client, name)).id)
        return str(run.id)


async def remove(name: str) -> None:
    """Remove the schedule once its current runs have ended. Records and Prefect's history stay.

    Raises:
        ConfigError: there is no such schedule.
        ScheduleError: a run has not ended within `PATIENCE_S`; the schedule is paused.
    """
    from prefect import get_client

    async with get_client() as client:
        deployment = await _named(client, name)
        await client.pause_deployment(deployment.id)  # this also deletes the runs that are still to come
        deadline = time.monotonic() + PATIENCE_S
        while await _playing(client, deployment):
            if time.monotonic() > deadline:
                raise ScheduleError(
                    f"a run of '{name}' has not ended yet; the schedule is paused: remove it when the run has ended"
                )
            await asyncio.sleep(0.5)
        await client.delete_deployment(deployment.id)
        await discard(client, name)


async def _playing(client: PrefectClient, deployment: DeploymentResponse) -> bool:
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType

    begun = filters.FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    found = await client.read_flow_runs(
        deployment_filter=filters.DeploymentFilter(id=filters.DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=filters.FlowRunFilter(state=filters.FlowRunFilterState(type=begun)),
        limit=1,
    )
    return bool(found)


async def _read(client: PrefectClient, name: str | None = None) -> list[DeploymentResponse]:
    from prefect.client.schemas import filters

    found = await client.read_deployments(
        flow_filter=filters.FlowFilter(name=filters.FlowFilterName(any_=[FLOW])),
        deployment_filter=filters.DeploymentFilter(name=filters.DeploymentFilterName(any_=[name])) if name else None,
    )
    return sorted(found, key=lambda deployment: deployment.name)


async def _named(client: PrefectClient, name: str) -> DeploymentResponse:
    if found := await _read(client, name):
        return found[0]
    names = ", ".join(deployment.name for deployment in await _read(client))
    raise ConfigError(
        f"there is no schedule '{name}'; " + (f"there are: {names}" if names else "`ostinato schedule apply` makes one")
    )


async def _waiting(client: PrefectClient, deployment: UUID, limit: int = 1) -> list[FlowRun]:
    """Return the next runs that a deployment has planned, the first one first."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    waiting = filters.FlowRunFilterState(name=filters.FlowRunFilterStateName(any_=["Scheduled", "Late"]))
    return await client.read_flow_runs(
        deployment_filter=filters.DeploymentFilter(id=filters.DeploymentFilterId(any_=[deployment])),
        flow_run_filter=filters.FlowRunFilter(state=waiting),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=limit,
    )


async def _begun(client: PrefectClient, deployment: UUID) -> FlowRun | None:
    """Return the run of a deployment that began last."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    began = filters.FlowRunFilterStartTime(is_null_=False)
    runs = await client.read_flow_runs(
        deployment_filter=filters.DeploymentFilter(id=filters.DeploymentFilterId(any_=[deployment])),
        flow_run_filter=filters.FlowRunFilter(start_time=began),
        sort=FlowRunSort.START_TIME_DESC,
        limit=1,
    )
    return runs[0] if runs else None


def _outlook(deployment: DeploymentResponse, waiting: list[FlowRun]) -> tuple[datetime | None, bool, str | None]:
    """Return the next date of a deployment, whether it has ended, and why it plays nothing although it is active."""
    now = datetime.now(UTC)
    coming = waiting[0].expected_start_time if waiting else None
    active = [times.schedule for times in deployment.schedules if times.active and not deployment.paused]
    if coming is not None or not active:
        return coming, False, None
    try:
        dates = sorted(date for times in active for date in upcoming(times, now, 1))
    except ValueError as error:
        return None, False, f"Prefect cannot plan it: {error}"
    if not dates:
        over = all(ended(times, now) for times in active)
        return None, over, None if over else "it never plays, because no such date comes"
    late = deployment.updated is not None and now - deployment.updated > PLANNED_WITHIN
    if late and dates[0] < now + HORIZON:
        return dates[0], False, "the server has planned no run of it; the server's log says why"
    return dates[0], False, None


async def _facts(client: PrefectClient, deployment: DeploymentResponse) -> dict[str, Any]:
    following, over, problem = _outlook(deployment, await _waiting(client, deployment.id))
    last = await _begun(client, deployment.id)
    job = deployment.parameters.get("job", {})
    policy = job.get("schedule", {})
    return {
        "name": deployment.name,
        "what": policy.get("what"),
        "when": next((f"{key} {value}" for key in ("cron", "interval_s", "rrule") if (value := policy.get(key))), None),
        "timezone": policy.get("timezone"),
        "active": not deployment.paused and any(times.active for times in deployment.schedules),
        "ended": over,
        "problem": problem,
        "next": _iso(following),
        "last": _iso(last and last.start_time),
        "last_state": last and last.state_name,
        "overrides": job.get("overrides"),
        "folder": _folder(job),
        "pool": deployment.work_pool_name,
        "content": job.get("content"),
        "config_hash": job.get("config_hash"),
    }


def _folder(job: dict[str, Any]) -> str | None:
    """Return the folder that a schedule was applied in, if that was on this machine."""
    found = job.get("folder") or (folder_of(job["origin"]) if job.get("origin") else None)
    return str(found) if found else None


def _iso(when: Any) -> str | None:
    return when.isoformat(timespec="seconds") if when else None
