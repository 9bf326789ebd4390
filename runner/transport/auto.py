"""Choose a transport per request: direct where it is exact, litellm for everything else."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from runner.transport.base import Hear, Transport
    from runner.transport.direct import DirectTransport
    from runner.transport.litellm import LiteLLMTransport
    from runner.types import Connection, Request, Response


class AutoTransport:
    """Send requests in OpenAI's wire format directly, and all others through litellm. Raises as those do.

    Both are imported and made when the first request is sent: a run that the cache answers needs neither.
    """

    def __init__(self) -> None:
        self._last: tuple[str, str, Connection, Transport] | None = None  # one object: threads replace it atomically

    @functools.cached_property
    def _direct(self) -> DirectTransport:
        from runner.transport.direct import DirectTransport

        return DirectTransport()

    @functools.cached_property
    def _litellm(self) -> LiteLLMTransport:
        from runner.transport.litellm import LiteLLMTransport

        return LiteLLMTransport()

    def prepare(self, request: Request, connection: Connection) -> None:
        """Load what the chosen transport needs."""
        self._chosen(request, connection).prepare(request, connection)

    def complete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Send the request and wait. Raises LMError."""
        return self._chosen(request, connection).complete(request, connection, hear)

    def acomplete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Coroutine[Any, Any, Response]:
        """Do as `complete`, without blocking the event loop."""
        return self._chosen(request, connection).acomplete(request, connection, hear)

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        for name in ("_direct", "_litellm"):
            if (made := vars(self).get(name)) is not None:
                await made.aclose()

    def _chosen(self, request: Request, connection: Connection) -> Transport:
        last = self._last
        if last is None or last[2] is not connection or last[0] != request.model or last[1] != request.model_type:
            found: Transport = self._direct if self._direct.speaks(request, connection) else self._litellm
            last = self._last = request.model, request.model_type, connection, found
        return last[3]
