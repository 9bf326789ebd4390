"""Choose a transport per request: direct where it is exact, litellm for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.transport.direct import DirectTransport
from runner.transport.litellm import LiteLLMTransport

if TYPE_CHECKING:
    from runner.transport.base import Hear, Transport
    from runner.types import Connection, Request, Response


class AutoTransport:
    """Send requests in OpenAI's wire format directly, and all others through litellm. Raises as those do."""

    def __init__(self) -> None:
        self._direct = DirectTransport()
        self._litellm = LiteLLMTransport()

    def prepare(self, request: Request, connection: Connection) -> None:
        """Load what the chosen transport needs."""
        self._chosen(request, connection).prepare(request, connection)

    def complete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Send the request and wait. Raises LMError."""
        return self._chosen(request, connection).complete(request, connection, hear)

    async def acomplete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Do as `complete`, without blocking the event loop."""
        return await self._chosen(request, connection).acomplete(request, connection, hear)

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        await self._direct.aclose()
        await self._litellm.aclose()

    def _chosen(self, request: Request, connection: Connection) -> Transport:
        return self._direct if DirectTransport.speaks(request, connection) else self._litellm
