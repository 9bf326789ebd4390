"""The application of a server that Ostinato starts: Prefect's own, made in three quarters of the time."""

from __future__ import annotations

import gc
from typing import Any

_SELDOM = 50_000
"""Allocations between two garbage collections while Prefect is imported: a million objects that stay."""


def application() -> Any:
    """Prefect's ASGI application; to be named to uvicorn as a factory."""
    before = gc.get_threshold()
    gc.set_threshold(_SELDOM, *before[1:])
    from prefect.server.api.server import create_app

    made = create_app()
    gc.freeze()  # none of it is garbage, and no later collection need look at it
    gc.set_threshold(*before)
    return made
