"""Bounded fan-out: a fixed number of workers draw slots from a stream and hand finished samples on, a bundle at a time."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from runner.errors import BudgetExceeded, LMError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from runner.batch.asker import Asker, Slot
    from runner.types import Sample

Keep: TypeAlias = "Callable[[list[Sample]], None]"
LOOKUP_BATCH = 256
AHEAD = 8
"""Requests in flight for each worker that has another one ready."""


class Stop:
    """A request to stop: no new slot is begun, what is in flight is finished. Set from a signal handler or a callback."""

    def __init__(self) -> None:
        self.requested = False
        self.reason: LMError | BudgetExceeded | None = None

    def request(self, reason: LMError | BudgetExceeded | None = None) -> None:
        """Stop; the reason of the first request is kept."""
        if not self.requested:
            self.requested, self.reason = True, reason


def plan(
    asker: Asker, slots: Iterable[Slot], done: Container[tuple[str, int]], keep: Keep, *, stop: Stop | None = None
) -> bytearray:
    """Play what the cache can answer, and say which slots need the model. Slots stream; a byte of each is kept.

    Args:
        asker: plays them.
        slots: all slots of the run.
        done: (row id, repeat) of those that have been played before.
        keep: is given the samples that the cache could answer, a bundle at a time.
        stop: looked at before each bundle.

    Returns:
        A byte for each slot, in their order: 1 for those that need the model. After a stop, only for the first ones.
    """
    owed = bytearray()
    stream = iter(slots)
    while not (stop and stop.requested) and (batch := list(islice(stream, LOOKUP_BATCH))):
        due = [slot for slot in batch if (slot[0].id, slot[1]) not in done] if done else batch
        played = asker.from_cache(due)
        keep([sample for sample in played if sample is not None])
        if len(due) == len(batch):
            owed += bytes(sample is None for sample in played)
        else:
            missing = {(row.id, repeat) for (row, repeat), sample in zip(due, played, strict=True) if sample is None}
            owed += bytes((row.id, repeat) in missing for row, repeat in batch)
    return owed


async def ask(asker: Asker, slots: Iterable[Slot], keep: Keep, *, concurrency: int, stop: Stop) -> None:
    """Ask the model about every slot, with an eighth more workers than requests may be in flight.

    While a worker stores and records an answer, another one has its next request ready: it goes out as soon as the answer has
    come. How many are in flight is the limiter's to say.

    A row that fails is a sample with an error and cancels nothing. An error that would meet every row (a refused key, a spent
    quota or budget, an address where nothing answers) stops the stream: the rows it met stay owed, and `stop.reason` says why.

    Args:
        asker: plays them; the limiter of its LM lets `concurrency` requests through.
        slots: those that need the model.
        keep: is given each sample when it is finished.
        concurrency: requests that may be in flight.
        stop: looked at before each slot.

    Raises:
        RecordError: a finished sample could not be written; requests in flight are cancelled.
    """
    stream = iter(slots)

    async def work() -> None:
        for slot in stream:
            if stop.requested:
                return
            try:
                sample = await asker.ask(slot)
            except (LMError, BudgetExceeded) as error:  # not this row's fault: the slot stays owed
                stop.request(error)
                return
            keep([sample])

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency + concurrency // AHEAD):
            group.create_task(work())
