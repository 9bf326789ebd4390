"""Runs that were due while nothing served them: which of them are played later, by the server's own history of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

_WAITING = ("Scheduled", "Late")
"""Names of the states of a run that nobody has tried to start; one that waits for the run before it has another."""


async def passed_over(run_id: UUID, *, catch_up: str, late_s: float) -> str | None:
    """Why this run is not to be played, or None when it is.

    Args:
        run_id: the flow run.
        catch_up: ``none`` of the missed runs, ``one`` for all of them, or ``all``.
        late_s: seconds after which a run that nobody tried to start counts as missed.
    """
    from prefect import get_client

    async with get_client() as client:
        run = await client.read_flow_run(run_id)
        late = await _late(client, run)
        if catch_up == "all" or late <= timedelta(seconds=late_s):
            return None
        if catch_up == "none":
            return f"It was due {round(late.total_seconds())} s before anything served it (schedule.catch_up=none)."
        other = await _began_since(client, run)
        return f"The run {other.name} was played for all that were missed (schedule.catch_up=one)." if other else None


async def _late(client: PrefectClient, run: FlowRun) -> timedelta:
    """How long after it was due somebody first tried to start it; nothing for runs that were asked for by hand."""
    if not run.auto_scheduled or run.expected_start_time is None:
        return timedelta()
    tried = [state.timestamp for state in await client.read_flow_run_states(run.id) if state.name not in _WAITING]
    return min(tried) - run.expected_start_time if tried else timedelta()


async def _began_since(client: PrefectClient, run: FlowRun) -> FlowRun | None:
    """Another run of the schedule that began after this one was due, and so stands for it."""
    from prefect.client.schemas import filters

    assert run.deployment_id is not None
    others = await client.read_flow_runs(
        deployment_filter=filters.DeploymentFilter(id=filters.DeploymentFilterId(any_=[run.deployment_id])),
        flow_run_filter=filters.FlowRunFilter(
            start_time=filters.FlowRunFilterStartTime(after_=run.expected_start_time),
            id=filters.FlowRunFilterId(not_any_=[run.id]),
        ),
        limit=1,
    )
    return others[0] if others else None
