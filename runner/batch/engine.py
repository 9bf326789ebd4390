"""Ask many slots at once: a fixed number of workers draw slots from a stream and pass on finished samples in batches."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from runner.errors import BudgetExceeded, LMError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from runner.batch.asker import Answered, Asker, Slot
    from runner.types import Sample

Keep: TypeAlias = "Callable[[list[Sample]], None]"
LOOKUP_BATCH = 256
GATHER_TURNS = 1
"""Turns of the event loop that samples wait for others, as answers do for the cache."""
AHEAD = 8
"""Requests in flight per extra worker, which has another request ready."""


class Stop:
    """A request to stop: no new slot is begun, requests in flight are finished. Set by a signal handler or a callback."""

    def __init__(self) -> None:
        self.requested = False
        self.reason: LMError | BudgetExceeded | None = None

    def request(self, reason: LMError | BudgetExceeded | None = None) -> None:
        """Stop. The reason of the first call is kept."""
        if not self.requested:
            self.requested, self.reason = True, reason


def plan(
    asker: Asker, slots: Iterable[Slot], done: Container[tuple[str, int]], keep: Keep, *, stop: Stop | None = None
) -> bytearray:
    """Answer what the cache can, and return which slots need the model. Slots stream; one byte per slot is kept.

    Args:
        asker: makes and answers the requests.
        slots: all slots of the run.
        done: (row id, repeat) of those that have a sample already.
        keep: called with the samples that the cache could answer, in batches.
        stop: checked before each batch.

    Returns:
        One byte per slot, in order: 1 for those that need the model. After a stop, only the first ones have a byte.
    """
    owed = bytearray()
    stream = iter(slots)
    while not (stop and stop.requested) and (batch := list(islice(stream, LOOKUP_BATCH))):
        due = [slot for slot in batch if (slot[0].id, slot[1]) not in done] if done else batch
        found = asker.from_cache(due)
        keep([sample for sample in found if sample is not None])
        if len(due) == len(batch):
            owed += bytes(sample is None for sample in found)
        else:
            missing = {(row.id, repeat) for (row, repeat), sample in zip(due, found, strict=True) if sample is None}
            owed += bytes((row.id, repeat) in missing for row, repeat in batch)
    return owed


async def ask(asker: Asker, slots: Iterable[Slot], keep: Keep, *, concurrency: int, stop: Stop) -> None:
    """Ask every slot of the model, with an eighth more workers than requests may be in flight.

    While a worker stores and records an answer, another one has its next request ready, which is sent as soon as the answer
    has arrived. The limiter decides how many are in flight.

    A row that fails is a sample with an error, and cancels nothing. An error that would fail every row (a refused key, a spent
    quota or budget, an address where nothing answers) stops the stream: rows that met it stay owed, and `stop.reason` is set.

    Args:
        asker: makes and sends the requests; the limiter of its LM lets `concurrency` of them through.
        slots: those that need the model.
        keep: called with each sample when it is finished.
        concurrency: requests that may be in flight.
        stop: checked before each slot.

    Raises:
        RecordError: a finished sample could not be written; requests in flight are cancelled.
    """
    stream = iter(slots)
    workers = concurrency + concurrency // AHEAD
    if asker.asks:
        await _ask_and_judge(asker, stream, keep, workers, stop)
        return

    recorder = _Recorder(asker, keep)

    async def work() -> None:
        for slot in stream:
            if stop.requested:
                return
            try:
                answered = await asker.answer(slot)
            except (LMError, BudgetExceeded) as error:  # not this row's fault: the slot stays owed
                stop.request(error)
                return
            await recorder.add(answered.sample)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())


class _Recorder:
    """Record together what is finished within a few turns of the event loop, after the answers are in the cache.

    Args:
        asker: whose answers are stored first.
        keep: records the samples.
    """

    def __init__(self, asker: Asker, keep: Keep) -> None:
        self._asker = asker
        self._keep = keep
        self._samples: list[Sample] = []
        self._recorded: asyncio.Future[None] | None = None

    async def add(self, sample: Sample) -> None:
        """Return when the sample is recorded. Raises what storing and recording raise."""
        recorded = self._recorded
        if recorded is None:
            loop = asyncio.get_running_loop()
            recorded = self._recorded = loop.create_future()
            loop.call_soon(self._record, loop, GATHER_TURNS)
        self._samples.append(sample)
        await recorded

    def _record(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        if turns:
            loop.call_soon(self._record, loop, turns - 1)
            return
        samples, recorded = self._samples, self._recorded
        self._samples, self._recorded = [], None
        assert recorded is not None
        try:
            self._asker.settle()
            self._keep(samples)
        except Exception as error:  # boundary: those that wait raise it
            if recorded.done():  # they were cancelled
                raise
            recorded.set_exception(error)
        else:
            if not recorded.done():
                recorded.set_result(None)


async def _ask_and_judge(asker: Asker, stream: Iterator[Slot], keep: Keep, workers: int, stop: Stop) -> None:
    """Ask slots with some workers, and judge their answers with as many others, so that both models are busy at once.

    After a stop, answers that no judge has seen stay owed: the cache has them.
    """
    answers: asyncio.Queue[Answered | None] = asyncio.Queue(workers)
    recorder = _Recorder(asker, keep)

    async def answer() -> None:
        for slot in stream:
            if stop.requested:
                return
            try:
                answered = await asker.answer(slot)
            except (LMError, BudgetExceeded) as error:
                stop.request(error)
                return
            await answers.put(answered)

    async def judge() -> None:
        while (answered := await answers.get()) is not None:
            try:
                sample = await asker.judge(answered)
            except (LMError, BudgetExceeded) as error:
                stop.request(error)
                continue
            await recorder.add(sample)

    async with asyncio.TaskGroup() as judging:
        for _ in range(workers):
            judging.create_task(judge())
        async with asyncio.TaskGroup() as asking:
            for _ in range(workers):
                asking.create_task(answer())
        for _ in range(workers):
            await answers.put(None)
