"""One training carried through: begun once, followed by anyone, cancelled by anyone. All that lasts is in the ledger.

Every step takes the job's lock, looks, writes what it has found, and lets go; whoever cannot have the lock reads what the other
has written. So any number of processes may follow a job, each may die at any moment, and none is needed.
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
"""How long a provider that cannot be reached is asked again: about a quarter of an hour. Its training goes on all the while."""

_SLICE_S = 0.2


def _never() -> bool:
    return False


class Training:
    """A job and whoever trains it.

    Args:
        folder: the job in the ledger.
        backend: who trains.
        policy: how a provider that cannot be reached is asked again.
    """

    def __init__(self, folder: JobFolder, backend: Backend, *, policy: RetryPolicy = PATIENCE) -> None:
        self.folder = folder
        self.backend = backend
        self.policy = policy

    def begin(self, *, force: bool = False) -> State:
        """Have the job begun, unless it is under way or has succeeded. Returns how it stands.

        A job that had failed or was cancelled is begun again where that costs nothing, from its last checkpoint.

        Args:
            force: make another attempt, from nothing, whatever came of the last one.

        Raises:
            FinetuneError: a paid job has failed, or, with `force`, it is under way.
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
                f"{self._name} {_ended(state)}; another attempt is paid for again, and is made with --force (from Python: "
                "train_kwargs={'force': True})"
            )
        self._again(fresh=force)
        return self._patiently()

    def step(self) -> State:
        """Carry the job on as far as it goes now. Does nothing while another process does.

        Raises:
            LMError: the provider could not be asked.
            FinetuneError: the job cannot go on by itself.
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
            if report.status is TrainingStatus.pending:  # a queue that it has come back to
                return self.folder.state()
            return self.folder.move(report.status, model=report.model, error=report.error)

    def follow(self, *, watch: Callable[[State], None] | None = None, stop: Callable[[], bool] = _never) -> State:
        """Wait for the end of the job, and carry it on meanwhile.

        Args:
            watch: told the state after each look.
            stop: whether to wait no longer; asked several times a second.

        Raises:
            FinetuneError: the provider could not be reached for long, or refuses us; the training itself may go on.
            CancelledError: `stop` said so; the training goes on.
        """
        while True:
            state = self._patiently(stop)
            if watch is not None:
                watch(state)
            if state.status.final:
                return state
            _sleep(self.backend.poll_s, stop)

    def cancel(self) -> State:
        """Have the training stopped and wait until it has. Harmless when it has ended."""
        self.folder.ask_to_cancel()
        return self.follow()

    @property
    def _name(self) -> str:
        return self.folder.spec.job

    def _again(self, *, fresh: bool) -> None:
        with self.folder.lock() as ours:
            if ours and self.folder.state().status.final:  # else another process begins it at this moment: it is followed
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
                        f"{self._name}: {error}; what was begun goes on without us; follow it: ostinato ft attach {self._name}"
                    ) from error
                _sleep(wait, stop)


def _sleep(seconds: float, stop: Callable[[], bool]) -> None:
    """Sleep, unless `stop` says that it is no use. Raises CancelledError then."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stop():
            raise CancelledError("stopped on request; the training goes on")
        time.sleep(min(left, _SLICE_S))


def _ended(state: State) -> str:
    return f"has {state.status}: {state.error}" if state.error else f"was {state.status}"
