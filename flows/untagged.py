"""Start tasks without tags. Prefect asks the server for a slot per tag, so tagged tasks could not start while it is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.context import TagsContext  # noqa: TID253 - a home of Prefect; only flows import this module

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def untagged() -> AbstractContextManager[object]:
    """Start tasks within the block without the tags of their flow run, which itself keeps them."""
    return TagsContext(current_tags=set())
