"""An endpoint of OpenAI's format on loopback for the programs that answer rows: each request is a step of its row's sample."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from typing import TYPE_CHECKING

from runner.errors import OstinatoError
from runner.lm import front
from runner.network.serving import Listener
from runner.secrets import remember

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runner.lm.lm import LM
    from runner.lm.wire import Asked
    from runner.network.serving import Answer, Incoming
    from runner.solvers.steps import Steps
    from runner.types import Response


class Door:
    """Where the program of one row asks.

    Attributes:
        url: the address, which ends in ``/v1``.
        failed: the error of the request that failed last, if any.
    """

    def __init__(self, url: str, steps: Steps) -> None:
        self.url = url
        self.failed: OstinatoError | None = None
        self._own = steps.lm
        self._other: LM | None = None

    async def complete(self, asked: Asked) -> Response:
        """Ask the run's model. Raises OstinatoError."""
        lm = self._lm(text=asked.form == "text")
        try:
            request = lm.request(messages=asked.messages, prompt=asked.prompt, **asked.params)
            return (await lm.acomplete(request)).response
        except OstinatoError as error:
            self.failed = error
            raise

    def _lm(self, *, text: bool) -> LM:
        """Return the LM of this row for text, or for conversations."""
        if text == (self._own.model_type == "text"):
            return self._own
        if self._other is None:
            self._other = self._own.copy(model_type="text" if text else "chat")
        return self._other


class Endpoint:
    """One listener, open while any row is being answered. Each row has an address of its own.

    Attributes:
        key: what programs have to send.
    """

    def __init__(self) -> None:
        remember(key := f"ostinato-{secrets.token_urlsafe(24)}")
        self.key = key
        self._doors: dict[str, tuple[Door, Steps]] = {}
        self._numbers = itertools.count(1)
        self._listener: asyncio.Task[Listener] | None = None
        self._rows = 0

    @contextlib.asynccontextmanager
    async def door(self, steps: Steps) -> AsyncIterator[Door]:
        """Open the address of a row. Raises OSError if nothing can listen."""
        name = str(next(self._numbers))
        self._rows += 1  # before anything is awaited: what another row needs is not closed
        try:
            listener = await self._listening()
            door = Door(f"http://127.0.0.1:{listener.port}/{name}/v1", steps)
            self._doors[name] = door, steps
            yield door
        finally:
            self._rows -= 1
            self._doors.pop(name, None)
            if not self._rows and self._listener is not None:
                starting, self._listener = self._listener, None
                (await starting).close()

    async def _listening(self) -> Listener:
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._start())
        return await asyncio.shield(self._listener)

    async def _start(self) -> Listener:
        listener = Listener(self._handle)
        await listener.start()
        return listener

    async def _handle(self, incoming: Incoming) -> Answer:
        if not front.has_key(incoming, self.key):
            return front.refused(401, "the key is missing or wrong: it is in OPENAI_API_KEY", "invalid_api_key")
        name, _, path = incoming.path.partition("?")[0].strip("/").partition("/")
        if name not in self._doors:
            return front.refused(404, "no row is being answered at this address: it is in OPENAI_BASE_URL", "not_found")
        door, steps = self._doors[name]
        names = {steps.lm.model, steps.lm.model.partition("/")[2]}
        return await front.respond(incoming, f"/{path}", steps.lm.model, names, door.complete)
