"""Create Prefect's server application in three quarters of the usual time, for servers that Ostinato starts."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_SELDOM = 50_000
"""Allocations between two garbage collections while Prefect is imported, which creates a million permanent objects."""


class Pages:
    """Prefect's pages, as an ASGI application that is made at the first request.

    They are copied first, 17 MB, which most runs need not wait for: nobody looks at them.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
        await self._made(scope, receive, send)


def application() -> Any:
    """Return Prefect's ASGI application. This is the factory that uvicorn is given."""
    before = gc.get_threshold()
    gc.set_threshold(_SELDOM, *before[1:])
    from prefect.server.api import server

    namespace = vars(server)
    make_pages = namespace["create_ui_app"]
    namespace["create_ui_app"] = lambda ephemeral: Pages(lambda: make_pages(ephemeral))
    made = server.create_app()
    gc.freeze()  # none of it is garbage, so later collections need not look at it
    gc.set_threshold(*before)
    return made
