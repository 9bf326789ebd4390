"""Start tasks without tags. For each tag Prefect would ask the server for a slot, so that none could start while it is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.context import TagsContext  # noqa: TID253 - a home of Prefect; only flows import this module

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def untagged() -> AbstractContextManager[object]:
    """Keep tasks that are started meanwhile from inheriting the tags of their flow run, which keeps them itself."""
    return TagsContext(current_tags=set())
