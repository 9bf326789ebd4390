"""Decide which missed runs (due while no worker was running) still run. Called before the worker looks for runs.

Prefect's worker starts all of them at once: after a night there may be hundreds, more than SQLite can take.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

_PAGE = 200


async def pass_over(client: PrefectClient, flow: str) -> int:
    """Cancel the missed runs that the schedules of a flow no longer want. Returns how many."""
    from prefect.states import Cancelled

    count = 0
    for run, why in unwanted(await _waiting(client, flow), datetime.now(UTC)):
        await client.set_flow_run_state(run.id, Cancelled(message=why))
        count += 1
    return count


def unwanted(waiting: Iterable[FlowRun], now: datetime) -> list[tuple[FlowRun, str]]:
    """Return the runs that are not to run, and why, by their own ``schedule.catch_up`` and ``schedule.late_s``.

    Args:
        waiting: runs that no worker has tried to start, the newest first.
        now: the current time.
    """
    found: list[tuple[FlowRun, str]] = []
    kept: dict[object, FlowRun] = {}
    for run in waiting:
        policy = run.parameters["job"]["schedule"]
        due = run.expected_start_time
        missed = run.auto_scheduled and due is not None and now - due > timedelta(seconds=policy["late_s"])
        if not missed or policy["catch_up"] == "all":
            continue
        if policy["catch_up"] == "none":
            found.append((run, "It was due while no worker served it (schedule.catch_up=none)."))
        elif (newer := kept.setdefault(run.deployment_id, run)) is not run:
            found.append((run, f"It was missed, and the run of {newer.expected_start_time} replaces it (schedule.catch_up=one)."))
    return found


async def _waiting(client: PrefectClient, flow: str) -> list[FlowRun]:
    """Return the runs that are due and that no worker has tried to start, the newest first."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    found: list[FlowRun] = []
    while len(found) % _PAGE == 0:
        page = await client.read_flow_runs(
            flow_filter=filters.FlowFilter(name=filters.FlowFilterName(any_=[flow])),
            flow_run_filter=filters.FlowRunFilter(
                state=filters.FlowRunFilterState(name=filters.FlowRunFilterStateName(any_=["Scheduled", "Late"])),
                expected_start_time=filters.FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),  # type: ignore[arg-type] # pydantic makes it a pendulum one
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if not page:
            break
    return found
