"""Play what a run owes on workers: lease slots, grant attempts, and write the samples as they come."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from typing import TYPE_CHECKING

from runner.batch.engine import AHEAD
from runner.errors import BudgetExceeded, DataError, EndpointClosedError, LaunchError, LMError
from runner.workers.desk import Attempts, Desk
from runner.workers.engine import Lost, UnfitError
from runner.workers.leases import Leases
from runner.workers.parcel import pack
from runner.workers.wire import (
    Answer,
    Closed,
    Demand,
    Done,
    Failure,
    Idle,
    Lease,
    Owed,
    Ready,
    Spend,
    Stop,
    Unfit,
    encode,
    from_worker,
    sample_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.experiment.experiment import Experiment
    from runner.lm.lm import LM
    from runner.types import Sample
    from runner.workers.engine import Engine, Link
    from runner.workers.wire import FromHead, FromWorker, Leased, Slot

SILENCE_S = 60.0
"""Seconds without a word, not even a heartbeat, after which a worker counts as lost."""
NOBODY_S = 60.0
"""Seconds that a run waits for a worker when it has none."""
FURTHER_S = 2.0
"""Seconds that it waits for a further one when those that came cannot play it."""
GOODBYE_S = 2.0
"""Seconds to tell a worker that the run has ended: one that is gone cannot be reached."""
LOOK_S = 0.1
"""Seconds between two looks at whether the run was asked to stop."""


class Worker:
    """A worker as the head sees it.

    Attributes:
        leased: the slots that it has, by name; `begun`: those that it has asked something for.
        attempts: what it has been granted.
        is_idle: whether it has said that its last slot has ended.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.leased: dict[Slot, Leased] = {}
        self.begun: set[Slot] = set()
        self.attempts = Attempts(self.tell)
        self.is_ready = self.is_idle = self._stopped = False
        self._out: list[FromHead] = []
        self._some = asyncio.Event()

    def tell(self, message: FromHead) -> None:
        """Send a message, with others."""
        self._out.append(message)
        self._some.set()

    def stop(self) -> None:
        """Have it begin no further slot. A second call does nothing."""
        if not self._stopped:
            self._stopped = True
            self.tell(Stop())

    async def telling(self) -> None:
        """Send what there is to send, until cancelled. Raises Lost."""
        while True:
            await self._some.wait()
            self._some.clear()
            messages, self._out = self._out, []
            await self.link.tell(_encoded(messages))


class Head:
    """Play one run on the workers of an engine.

    Args:
        experiment: the run; what it owes is planned.
        keep: records finished samples.
        engine: where workers come from.
        count: the most workers.
    """

    def __init__(self, experiment: Experiment, keep: Callable[[list[Sample]], None], engine: Engine, count: int) -> None:
        self._experiment = experiment
        self._keep = keep
        self._engine = engine
        self._count = count
        asker = experiment.asker
        concurrency = experiment.config.limits.max_concurrency
        self._tasks = max(1, -(-(concurrency + concurrency // AHEAD) // count)) * (2 if asker.asks else 1)
        self._leases = Leases(experiment.due(), asker.answered)
        lms: dict[str | None, LM] = dict([(None, experiment.lm), *experiment.named.lms.items()])
        self._lms = lms
        self._desk = Desk(lms, experiment.spending.keep, asker.missing_since)
        self._workers: set[Worker] = set()
        self._unfit: list[str] = []
        self._nobody_since = 0.0

    async def play(self) -> None:
        """Play all that is owed.

        Raises:
            ConfigError: something of the run cannot travel.
            LaunchError: there is no engine, or no worker that can play the run.
            RecordError: the record cannot be written.
        """
        packed = pack(self._experiment, self._tasks)
        try:
            await self._engine.open()
            async with asyncio.TaskGroup() as group:
                joining = group.create_task(self._join(group, packed))
                await self._until_ended()
                joining.cancel()
        finally:
            for worker in list(self._workers):
                self._forget(worker)
            await self._engine.close()

    async def _join(self, group: asyncio.TaskGroup, packed: bytes) -> None:
        """Begin with each worker that joins, as long as there are fewer than wanted."""
        known: set[str] = set()
        while True:
            if len(self._workers) >= self._count:
                await asyncio.sleep(LOOK_S)
                continue
            worker = Worker(await self._engine.joined(known))
            known.add(worker.link.name)
            self._workers.add(worker)
            group.create_task(self._serve(worker, packed))

    async def _until_ended(self) -> None:
        """Return when every slot has ended, or the run was asked to stop and what is in flight has ended."""
        stop, loop = self._experiment.stop, asyncio.get_running_loop()
        self._nobody_since = loop.time()
        while self._workers or not (self._leases.ended or stop.requested):
            await asyncio.sleep(LOOK_S)
            if self._desk.problem is not None:
                raise self._desk.problem
            if self._leases.ended or stop.requested:
                self._stop()
            if self._workers:
                self._nobody_since = loop.time()
            elif self._unfit and loop.time() - self._nobody_since > FURTHER_S:
                raise LaunchError("no worker can play this run: " + "; ".join(dict.fromkeys(self._unfit)))
            elif loop.time() - self._nobody_since > NOBODY_S:
                raise LaunchError(
                    f"there is no worker, and none came within {NOBODY_S:.0f} s; start some, and resume the run: "
                    f"ostinato resume {self._experiment.folder}"
                )

    def _stop(self) -> None:
        """Have all workers finish what is in flight, and nobody wait to ask a closed endpoint again."""
        closed = [name for name, lm in self._lms.items() if lm.limiter is not None and lm.limiter.now().state == "closed"]
        for worker in self._workers:
            worker.stop()
            for name in closed:
                worker.tell(Closed(name, Failure.of(EndpointClosedError("the run was asked to stop"))))

    async def _serve(self, worker: Worker, packed: bytes) -> None:
        """Listen to a worker until it is idle or lost."""
        telling: asyncio.Task[None] | None = None
        try:
            await worker.link.begin(packed)
            telling = asyncio.create_task(worker.telling())
            while not worker.is_idle:
                await self._listen(worker, telling)
        except Lost as lost:
            self._experiment.record.log(f"worker {worker.link.name} was lost ({lost}); what it had in flight is asked again")
        except UnfitError as unfit:
            self._refuse(worker, str(unfit))
        finally:
            if telling is not None:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)
            if worker in self._workers:
                self._lose(worker)
            with contextlib.suppress(Lost, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await worker.link.end()

    async def _listen(self, worker: Worker, telling: asyncio.Task[None]) -> None:
        """Hear one batch of messages. Raises Lost."""
        listening = asyncio.ensure_future(worker.link.listen())
        await asyncio.wait({listening, telling}, timeout=SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            if telling.done():
                telling.result()  # raises Lost
            raise Lost(f"no word for {SILENCE_S:.0f} s")
        self._hear(worker, from_worker(listening.result()))

    def _hear(self, worker: Worker, messages: Sequence[FromWorker]) -> None:
        """Take the messages of a worker: answers into the cache, samples into the record, demands to the desk."""
        done: list[Sample] = []
        self._desk.put(message for message in messages if isinstance(message, Answer))
        try:
            for message in messages:
                self._take(worker, message, done)
        finally:  # a later message may end the worker or the run, and a sample whose lease has ended comes only once
            self._keep(done)
        self._lease(worker)

    def _take(self, worker: Worker, message: FromWorker, done: list[Sample]) -> None:
        """Take one message; a finished sample goes to `done`."""
        match message:
            case Demand():
                worker.begun.add(message.slot)
                self._desk.demanded(worker.attempts, message)
            case Done():
                done.append(self._done(worker, sample_of(message.line)))
            case Answer():
                pass
            case Owed():
                self._owed(worker, message)
            case Spend():
                self._experiment.spending.keep(message.slot, message.spent, message.model)
            case Ready():
                worker.is_ready = True
                self._warn_of_unfit()
            case Idle():
                worker.is_idle = True
                self._score_time(message)
            case Unfit():
                raise UnfitError(f"{worker.link.name}: {message.reason}")
            case _:
                error = self._desk.heard(worker.attempts, message)
                if error is not None:
                    self._experiment.stop.request(error)

    def _done(self, worker: Worker, sample: Sample) -> Sample:
        """Take a finished sample, and check what its row expects of it."""
        slot = sample.id, sample.repeat
        leased = worker.leased.pop(slot)
        worker.begun.discard(slot)
        self._leases.returned()
        self._desk.ended(worker.attempts, slot)
        if (check := self._experiment.asker.check) is not None and sample.scores:
            sample.unmet = check(leased.row, sample.scores)
        return sample

    def _owed(self, worker: Worker, owed: Owed) -> None:
        """Leave a slot owed, for which nothing more can be asked now."""
        del worker.leased[owed.slot]
        worker.begun.discard(owed.slot)
        self._leases.returned()
        self._desk.ended(worker.attempts, owed.slot)
        for spent, model in owed.spent:
            self._experiment.tally.charge(spent, model)
        error = owed.failure.error()
        if not isinstance(error, LMError | BudgetExceeded):
            raise error
        self._experiment.stop.request(error)

    def _lease(self, worker: Worker) -> None:
        """Lease as many slots as a worker answers at a time, and as many again, so that it never waits for the next."""
        wanted = 2 * self._tasks - len(worker.leased)
        if worker.is_ready and not self._experiment.stop.requested and wanted >= max(1, self._tasks // 2):
            slots = self._leases.take(wanted)
            worker.leased |= {(one.row.id, one.repeat): one for one in slots}
            if slots:
                worker.tell(Lease(slots))

    def _lose(self, worker: Worker) -> None:
        """Lease what a worker has not returned to others. Raises LaunchError if the same row has ended several workers."""
        self._leases.lost(self._forget(worker), worker.begun)
        for other in self._workers:
            self._lease(other)

    def _forget(self, worker: Worker) -> list[Leased]:
        """Forget a worker, and count what it may have spent on slots without a sample. Return these slots."""
        self._workers.discard(worker)
        self._desk.lost(worker.attempts)
        leased, worker.leased = worker.leased, {}
        for models in self._experiment.spending.lost(leased).values():
            for model, spent in models.items():
                self._experiment.tally.charge(spent, model)
        return list(leased.values())

    def _refuse(self, worker: Worker, reason: str) -> None:
        self._unfit.append(reason)
        self._experiment.record.log(f"worker {worker.link.name} is not used: {reason}")
        if any(other.is_ready for other in self._workers):
            self._warn_of_unfit()

    def _warn_of_unfit(self) -> None:
        """Warn of workers that are not used, in a run that others play."""
        unfit, self._unfit = self._unfit, []
        for reason in dict.fromkeys(unfit):
            warnings.warn(f"a worker is not used: {reason}", stacklevel=2)

    def _score_time(self, idle: Idle) -> None:
        clock = self._experiment.asker.clock.seconds
        for name, seconds in idle.scoring_s.items():
            clock[name] = clock.get(name, 0.0) + seconds


def _encoded(messages: list[FromHead]) -> bytes:
    """Return messages as they travel. Raises DataError for a row that cannot."""
    try:
        return encode(messages)
    except (TypeError, ValueError, OverflowError):
        for leased in [one for message in messages if isinstance(message, Lease) for one in message.slots]:
            try:
                encode(leased)
            except (TypeError, ValueError, OverflowError) as error:
                raise DataError(
                    f"row '{leased.row.id}' cannot travel to a worker: {error}; play this run with execution.workers.kind=null"
                ) from None
        raise
