"""A webhook on loopback that keeps what is posted to it."""

from __future__ import annotations

import json
from typing import Any

from tests.support.loopback import Loopback, Request, Script, response


class Webhook(Loopback):
    """The webhook, as a context manager. It answers 204, and 500 on the path ``/broken``.

    Attributes:
        posted: the path and the JSON of each request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.posted: list[tuple[str, Any]] = []

    async def route(self, request: Request) -> Script:
        """Keep what was posted."""
        self.posted.append((request.path, json.loads(request.body)))
        return Script((response(status=500 if request.path == "/broken" else 204),))
