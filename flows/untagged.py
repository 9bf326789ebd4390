"""Tasks that begin although their server is away: for each tag of a task, Prefect would first ask it for a slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.context import TagsContext  # noqa: TID253 - a home of Prefect; only flows import this module

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def untagged() -> AbstractContextManager[object]:
    """Have the tasks that are begun meanwhile inherit no tags of their flow run; the flow run keeps its own."""
    return TagsContext(current_tags=set())
