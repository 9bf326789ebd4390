"""The task runs that this process has begun: what a server that is about to stop has to know the end of."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import State, Task
    from prefect.client.schemas.objects import TaskRun

_begun: defaultdict[UUID | None, set[UUID]] = defaultdict(set)


def note(_task: Task[Any, Any], run: TaskRun, _state: State[Any]) -> None:
    """Note a task run: the hook `on_running` of every task of ours."""
    _begun[run.flow_run_id].add(run.id)


def take_begun(flow_run_id: UUID) -> set[UUID]:
    """The task runs that this process has begun in a flow run, and forget them."""
    return _begun.pop(flow_run_id, set())
