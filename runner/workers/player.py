"""Answer the slots that the head leases to this worker, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runner import build
from runner.config.schema.model import LocalModel
from runner.errors import BudgetExceeded, CacheError, LMError, OstinatoError, first_of
from runner.models import served
from runner.session.loop import collecting_less
from runner.workers.parcel import unpack
from runner.workers.permits import ByHead, CacheOfHead, Counter
from runner.workers.wire import (
    Closed,
    Done,
    Failure,
    Idle,
    Lease,
    Leased,
    Owed,
    Ready,
    Stop,
    Unfit,
    as_json,
    encode,
    from_head,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.batch.asker import Asker
    from runner.config.schema import RunConfig
    from runner.experiment.parts import Parts
    from runner.types import Sample, Spent
    from runner.workers.parcel import Parcel
    from runner.workers.wire import FromHead, FromWorker

HEARTBEAT_S = 5.0
"""Seconds after which a worker that has nothing to say says so."""
ALONE_S = 60.0
"""Seconds without a head after which a worker gives up what it holds."""
GATHER_S, GATHER_TIMES = 0.002, 5
"""Seconds that a message waits for others, so that they travel together; so many times while the worker is busy."""
BUSY = 8
"""Attempts in flight with which a worker is busy: a few milliseconds make no difference to it."""


class Outbox:
    """Messages for the head. One thread puts them in, and another one's event loop takes them out.

    Args:
        is_busy: tells whether the worker has enough to do while messages wait for others.
    """

    def __init__(self, is_busy: Callable[[], bool]) -> None:
        self._is_busy = is_busy
        self._messages: list[FromWorker] = []
        self._lock = threading.Lock()
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def put(self, message: FromWorker) -> None:
        """Add a message."""
        with self._lock:
            self._messages.append(message)
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting[0].call_soon_threadsafe(waiting[1].set)

    async def take(self, timeout_s: float) -> list[FromWorker]:
        """Return what there is, as soon as there is something; an empty list after `timeout_s` seconds."""
        event = asyncio.Event()
        with self._lock:
            if not self._messages:
                self._waiting = asyncio.get_running_loop(), event
        if self._waiting is not None:
            try:
                await asyncio.wait_for(event.wait(), timeout_s)
                for _ in range(GATHER_TIMES):
                    await asyncio.sleep(GATHER_S)
                    if not self._is_busy():
                        break
            except TimeoutError:
                pass
        with self._lock:
            self._waiting = None
            messages, self._messages = self._messages, []
        return messages


class Player:
    """Play slots for one head. Made and spoken to in the event loop of the engine; rows have their own.

    Args:
        packed: the run, as `parcel.pack` makes it.
    """

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._outbox = Outbox(lambda: self._counter.in_flight >= BUSY)
        self._counter = Counter(self._outbox.put)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: asyncio.Queue[Leased | None] = asyncio.Queue()
        self._stopping = False
        self._cut: list[tuple[Spent, str | None]] = []
        self._early: list[FromHead] = []
        self._playing: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self.last_heard = time.monotonic()
        threading.Thread(target=self._run, name="ostinato player", daemon=True).start()

    # --- in the event loop of the engine

    async def listen(self) -> bytes:
        """Return the next messages for the head; none after `HEARTBEAT_S`."""
        self.last_heard = time.monotonic()
        try:
            return encode(await self._outbox.take(HEARTBEAT_S))
        finally:
            self.last_heard = time.monotonic()

    def tell(self, messages: bytes) -> None:
        """Take messages of the head."""
        with self._lock:
            if self._loop is None:  # it has not begun, or has ended
                self._early += from_head(messages)
            else:
                self._loop.call_soon_threadsafe(self._hear, from_head(messages))

    def end(self) -> None:
        """Give up whatever is in flight."""
        with self._lock:
            if self._loop is not None and self._playing is not None:
                self._loop.call_soon_threadsafe(self._playing.cancel)

    @property
    def is_alone(self) -> bool:
        """Return whether no head has listened for a long time."""
        return time.monotonic() - self.last_heard > ALONE_S

    # --- in the thread of the rows

    def _run(self) -> None:
        with tempfile.TemporaryDirectory(prefix="ostinato-worker-") as folder, collecting_less():
            try:
                asyncio.run(self._play(Path(folder)))
            except asyncio.CancelledError:
                pass
            except OstinatoError as error:
                self._outbox.put(Unfit(str(error)))
            except Exception as error:  # noqa: BLE001 - boundary: what a worker's thread raises belongs to the head
                first = first_of(error) if isinstance(error, ExceptionGroup) else error
                self._outbox.put(Unfit(f"{type(first).__name__}: {first}"))

    async def _play(self, folder: Path) -> None:
        with self._lock:
            self._loop, self._playing = asyncio.get_running_loop(), asyncio.current_task()
            early = self._early
        watching = asyncio.create_task(self._end_alone())
        try:
            self._hear(early)
            await self._play_all(folder)
        finally:
            watching.cancel()
            with self._lock:  # nobody calls into a loop that is closed
                self._loop = self._playing = None

    async def _play_all(self, folder: Path) -> None:
        parcel, asker, parts = unpack(self._packed, folder)
        self._connect(parcel, asker, parts, folder)
        parts.lm.kwargs.update(build.access(parcel.config))
        for name, config in (parts.named.configs if parts.named else {}).items():
            asker.named[name].kwargs.update(build.access(config))
        try:
            await _launch(parcel.config, parts)
            self._outbox.put(Ready())
            async with asyncio.TaskGroup() as group:
                for _ in range(parcel.tasks):
                    group.create_task(self._work(asker))
        finally:
            await _close(parts)
        self._outbox.put(Idle(dict(asker.clock.seconds)))

    def _connect(self, parcel: Parcel, asker: Asker, parts: Parts, folder: Path) -> None:
        """Have everything that these models send go through the head."""
        asker.keep = self._counter.state
        asker.missing_since = 0 if parcel.looked else None
        asker.on_cut = lambda spent, model: self._cut.append((spent, model))
        for name, lm in ((None, parts.lm), *asker.named.items()):
            lm.permits = ByHead(self._counter, name)
            if lm.store is not None:
                lm.store = CacheOfHead(lm.store, self._counter, name, folder)

    async def _end_alone(self) -> None:
        """Give up what is in flight once there is no head any more. Nothing new is sent without one."""
        while not self.is_alone:  # noqa: ASYNC110 - the head is in the engine's loop, and its silence is no event
            await asyncio.sleep(HEARTBEAT_S)
        self.end()

    async def _work(self, asker: Asker) -> None:
        """Answer slots until the head says to stop."""
        while (leased := await self._inbox.get()) is not None and not self._stopping:
            slot = leased.row, leased.repeat
            if leased.answered is not None:
                asker.answered[leased.row.id, leased.repeat] = leased.answered
            try:
                sample = await asker.ask(slot)
            except (LMError, BudgetExceeded, CacheError) as error:  # not this row's fault: the slot stays owed
                spent, self._cut = self._cut, []
                self._outbox.put(Owed((leased.row.id, leased.repeat), Failure.of(error), spent))
                continue
            self._outbox.put(self._packed_sample(sample))
        self._inbox.put_nowait(None)  # for the next one

    def _packed_sample(self, sample: Sample) -> Done | Unfit:
        try:
            return Done(as_json(sample))
        except (TypeError, ValueError, OverflowError) as error:
            return Unfit(f"the sample of row '{sample.id}' cannot travel: {error}")

    def _hear(self, messages: list[FromHead]) -> None:
        for message in messages:
            match message:
                case Lease():
                    for leased in message.slots:
                        self._inbox.put_nowait(leased)
                case Stop():
                    self._stopping = True
                    self._inbox.put_nowait(None)
                case Closed():
                    error = message.failure.error()
                    if isinstance(error, LMError):
                        self._counter.close(message.model, error)
                case _:
                    self._counter.heard(message)


async def _launch(config: RunConfig, parts: Parts) -> None:
    """Serve the local models of a run on this worker. Raises LaunchError."""
    if isinstance(config.model, LocalModel):
        if config.model.backend == "llamacpp":
            await asyncio.to_thread(served.pull, config.model.name)
        await asyncio.to_thread(parts.lm.launch)
    if parts.named:
        await parts.named.launch(lambda _done, _total: None)


async def _close(parts: Parts) -> None:
    """Close the connections of a run, and end the servers of its local models."""
    await parts.lm.aclose()
    await asyncio.to_thread(parts.lm.kill)
    if parts.named:
        await parts.named.aclose()
        await parts.named.kill()
