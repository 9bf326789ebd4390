"""Create Prefect's server application in three quarters of the usual time, for servers that Ostinato starts."""

from __future__ import annotations

import gc
from typing import Any

_SELDOM = 50_000
"""Allocations between two garbage collections while Prefect is imported, which creates a million permanent objects."""


def application() -> Any:
    """Return Prefect's ASGI application. This is the factory that uvicorn is given."""
    before = gc.get_threshold()
    gc.set_threshold(_SELDOM, *before[1:])
    from prefect.server.api.server import create_app

    made = create_app()
    gc.freeze()  # none of it is garbage, so later collections need not look at it
    gc.set_threshold(*before)
    return made
