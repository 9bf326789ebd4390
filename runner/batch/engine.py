"""Bounded fan-out: a fixed number of workers draw slots from a stream and hand finished samples on, a bundle at a time."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from runner.errors import BudgetExceeded, LMError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runner.batch.player import Player, Slot
    from runner.types import Sample

LOOKUP_BATCH = 256


class Stop:
    """A request to stop: no new slot is begun, what is in flight is finished. Set from a signal handler or a callback."""

    def __init__(self) -> None:
        self.requested = False
        self.reason: LMError | BudgetExceeded | None = None

    def request(self, reason: LMError | BudgetExceeded | None = None) -> None:
        """Stop; the reason of the first request is kept."""
        if not self.requested:
            self.requested, self.reason = True, reason


def play_cached(player: Player, slots: Iterable[Slot], on_samples: Callable[[list[Sample]], None]) -> Iterator[Slot]:
    """Play what the cache can answer, and yield the slots that need the model. Rows stream; nothing is kept."""
    stream = iter(slots)
    while batch := list(islice(stream, LOOKUP_BATCH)):
        played = player.from_cache(batch)
        on_samples([sample for _, sample in played if sample is not None])
        yield from (slot for slot, sample in played if sample is None)


async def play(
    player: Player, slots: Iterable[Slot], on_samples: Callable[[list[Sample]], None], *, concurrency: int, stop: Stop
) -> None:
    """Ask the model about every slot, at most `concurrency` at once.

    A row that fails is a sample with an error and cancels nothing. An error that would meet every row (a refused key, a spent
    quota or budget, an address where nothing answers) stops the stream: the rows it met stay owed, and `stop.reason` says why.

    Raises:
        RecordError: a finished sample could not be written; requests in flight are cancelled.
    """
    stream = iter(slots)

    async def work() -> None:
        for slot in stream:
            if stop.requested:
                return
            try:
                sample = await player.ask(slot)
            except (LMError, BudgetExceeded) as error:  # not this row's fault: the slot stays owed
                stop.request(error)
                return
            on_samples([sample])

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
