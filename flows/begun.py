"""Remember the task runs that this process started: a server that is about to stop must first record how they ended."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import State, Task
    from prefect.client.schemas.objects import TaskRun

_begun: defaultdict[UUID | None, dict[UUID, None]] = defaultdict(dict)


def note(_task: Task[Any, Any], run: TaskRun, _state: State[Any]) -> None:
    """Remember a task run. Every task of ours has this as its `on_running` hook."""
    remember(run)


def remember(run: TaskRun) -> None:
    """Remember a task run that Prefect's engine does not know."""
    _begun[run.flow_run_id].setdefault(run.id)


def take_begun(flow_run_id: UUID) -> list[UUID]:
    """Return the task runs that this process started in a flow run, in that order, and forget them."""
    return list(_begun.pop(flow_run_id, ()))
