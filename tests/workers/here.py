"""Workers without an engine: players in threads of this process, which a test can lose, hang or refuse."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from runner.workers import play
from runner.workers.engine import Lost, UnfitError
from runner.workers.player import Player
from runner.workers.wire import from_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.workers.wire import FromWorker


@dataclass
class Here:
    """An engine whose workers are threads.

    Attributes:
        spare: workers that join after the first ones, when others are lost.
        unfit: why a worker is refused, by number.
        heard: called with each worker and each of its messages, before the head gets them.
        links: the workers so far.
        opened: how often the head has opened it; `closed`: whether it has closed it.
    """

    count: int = 2
    spare: int = 0
    unfit: dict[int, str] = field(default_factory=dict)
    heard: Callable[[HereLink, FromWorker], None] = lambda _link, _message: None
    links: list[HereLink] = field(default_factory=list)
    packed: list[bytes] = field(default_factory=list)
    opened: int = 0
    closed: bool = False

    async def open(self):
        """Count it."""
        self.opened += 1

    async def joined(self, known):
        """Return the next worker; a spare one once another is lost."""
        while len(known) >= self.count + min(self.spare, sum(link.is_lost for link in self.links)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.links.append(HereLink(self, len(known)))
        return self.links[-1]

    async def close(self):
        """Note it."""
        self.closed = True


class HereLink:
    """One worker. `lose` has it vanish as a killed process does: nothing of it reaches the head any more, or is sent."""

    def __init__(self, engine: Here, number: int) -> None:
        self.name = f"worker {number}"
        self.number = number
        self.player: Player | None = None
        self.is_lost = self.hangs = False
        self._engine = engine

    def lose(self) -> None:
        """Vanish."""
        self.is_lost = True
        if self.player is not None:
            self.player.end()

    async def begin(self, packed):
        """Start a player."""
        self._engine.packed.append(packed)
        if (why := self._engine.unfit.get(self.number)) is not None:
            raise UnfitError(why)
        self.player = Player(packed)

    async def listen(self):
        """Return its messages, up to the one that a test loses it at."""
        self._reach()
        messages = await self.player.listen()
        if self.hangs:
            await asyncio.Event().wait()
        self._reach()
        for message in from_worker(messages):
            self._engine.heard(self, message)
            self._reach()
        return messages

    async def tell(self, messages):
        """Hand messages over."""
        self._reach()
        self.player.tell(messages)

    async def end(self):
        """End the player."""
        if self.player is not None:
            self.player.end()

    def _reach(self):
        if self.is_lost:
            raise Lost("killed by the test")


@contextlib.contextmanager
def workers_here(**settings):
    """Have runs with ``execution.workers.kind=dask`` play on workers of this process."""
    engine = Here(**settings)

    def made(_address, count, _resources):
        engine.count = count
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play, "Dask", made)
        yield engine
