"""Run one training: it is started once, and any process may follow or cancel it. All lasting state is in the ledger.

Every step takes the job's lock, polls, writes what it has found, and releases the lock; a process without the lock reads what the
other has written. So any number of processes may follow a job, each may die at any moment, and the job needs none of them.
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from typing import TYPE_CHECKING

from runner.errors import FinetuneError, LMError
from runner.finetune.jobs.status import TrainingStatus
from runner.network.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.finetune.jobs.backend import Backend
    from runner.finetune.jobs.ledger import JobFolder, State

PATIENCE = RetryPolicy(max_attempts=30, base_s=1.0, cap_s=60.0)
"""How long calls to an unreachable provider are repeated: about a quarter of an hour. Its training continues meanwhile."""

_SLICE_S = 0.2


def _never() -> bool:
    return False


class Training:
    """A job and its trainer.

    Args:
        folder: the job in the ledger.
        backend: the trainer.
        policy: how calls to an unreachable provider are repeated.
    """

    def __init__(self, folder: JobFolder, backend: Backend, *, policy: RetryPolicy = PATIENCE) -> None:
        self.folder = folder
        self.backend = backend
        self.policy = policy

    def begin(self, *, force: bool = False) -> State:
        """Start the job unless it is running or has succeeded. Return its state.

        A job that failed or was cancelled is started again from its last checkpoint if that costs nothing.

        Args:
            force: make another attempt, from nothing, whatever the result of the last one.

        Raises:
            FinetuneError: a paid job has failed, or, with `force`, the job is running.
        """
        known = self.folder.state()
        state = known if known.status.final else self._patiently()
        if not state.status.final and force and known.status is not TrainingStatus.not_started:
            raise FinetuneError(f"{self._name} is {state.status}; stop it first: ostinato ft cancel {self._name}")
        if not state.status.final or known.status is TrainingStatus.not_started:
            return state
        if state.status is TrainingStatus.succeeded and not force:
            return state
        if self.backend.paid and state.remote.get("job") and not force:
            raise FinetuneError(
                f"{self._name} {_ended(state)}; another attempt costs money again: use --force (from Python: "
                "train_kwargs={'force': True})"
            )
        self._again(fresh=force)
        return self._patiently()

    def step(self) -> State:
        """Advance the job as far as possible. Does nothing while another process does it.

        Raises:
            LMError: the provider cannot be reached.
            FinetuneError: the job cannot continue by itself.
        """
        with self.folder.lock() as ours:
            state = self.folder.state()
            if not ours or state.status.final:
                return state
            asked = self.folder.cancel_asked()
            if asked and state.status is TrainingStatus.not_started:
                return self.folder.move(TrainingStatus.cancelled)
            if state.status is TrainingStatus.not_started:
                self.folder.move(TrainingStatus.pending)
            if asked:
                self.backend.cancel(self.folder)
            report = self.backend.advance(self.folder)
            if report.status is TrainingStatus.pending:  # it is back in a queue
                return self.folder.state()
            return self.folder.move(report.status, model=report.model, error=report.error)

    def follow(self, *, watch: Callable[[State], None] | None = None, stop: Callable[[], bool] = _never) -> State:
        """Wait for the end of the job, and advance it meanwhile.

        Args:
            watch: called with the state after each poll.
            stop: whether to stop waiting; called several times per second.

        Raises:
            FinetuneError: the provider could not be reached for long, or refuses our calls; the training itself may continue.
            CancelledError: `stop` returned True; the training continues.
        """
        while True:
            state = self._patiently(stop)
            if watch is not None:
                watch(state)
            if state.status.final:
                return state
            _sleep(self.backend.poll_s, stop)

    def cancel(self) -> State:
        """Stop the training and wait until it has stopped. Does nothing if it has ended."""
        self.folder.ask_to_cancel()
        return self.follow()

    @property
    def _name(self) -> str:
        return self.folder.spec.job

    def _again(self, *, fresh: bool) -> None:
        with self.folder.lock() as ours:
            if ours and self.folder.state().status.final:  # else another process is starting it: follow that
                self.folder.again(fresh=fresh)

    def _patiently(self, stop: Callable[[], bool] = _never) -> State:
        began, attempt = time.monotonic(), 0
        while True:
            try:
                return self.step()
            except LMError as error:
                attempt += 1
                wait = self.policy.wait(error, attempt, time.monotonic() - began)
                if wait is None:
                    raise FinetuneError(
                        f"{self._name}: {error}; the training continues; follow it: ostinato ft attach {self._name}"
                    ) from error
                _sleep(wait, stop)


def _sleep(seconds: float, stop: Callable[[], bool]) -> None:
    """Sleep. Raises CancelledError as soon as `stop` returns True."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stop():
            raise CancelledError("stopped on request; the training continues")
        time.sleep(min(left, _SLICE_S))


def _ended(state: State) -> str:
    return f"has {state.status}: {state.error}" if state.error else f"was {state.status}"
