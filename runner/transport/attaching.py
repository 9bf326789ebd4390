"""Send requests with attachments: their bytes are read and encoded for each attempt, and are nowhere else in the process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from runner.attachments.parts import expanded, names_in

if TYPE_CHECKING:
    from runner.attachments import Attachments
    from runner.transport.base import Hear, Transport
    from runner.types import Connection, Request, Response


class AttachingTransport:
    """Replace the references in messages by what they refer to, and have another transport send them. Raises as that does.

    Args:
        transport: sends the requests.
        attachments: has the bytes.
    """

    def __init__(self, transport: Transport, attachments: Attachments) -> None:
        self._transport = transport
        self._attachments = attachments

    def prepare(self, request: Request, connection: Connection) -> None:
        """Load what sending needs."""
        self._transport.prepare(request, connection)

    def complete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Send the request and wait. Raises LMError, and RecordError if the bytes of an attachment are gone."""
        return self._transport.complete(self._whole(request), connection, hear)

    async def acomplete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Do as `complete`, without blocking the event loop."""
        if next(names_in(request.messages), None) is not None:
            request = await asyncio.to_thread(self._whole, request)
        return await self._transport.acomplete(request, connection, hear)

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        await self._transport.aclose()

    def _whole(self, request: Request) -> Request:
        if request.messages is None:
            return request
        return msgspec.structs.replace(request, messages=expanded(request.messages, self._attachments.read))
