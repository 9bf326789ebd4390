"""The interface between trainers and the ledger: one function advances a job as far as possible, another stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from runner.finetune.jobs.status import TrainingStatus

if TYPE_CHECKING:
    from runner.finetune.jobs.ledger import JobFolder


class Report(msgspec.Struct, frozen=True):
    """The state of a training as its trainer sees it: `model` if it has succeeded, `error` if it has failed."""

    status: TrainingStatus
    model: str | None = None
    error: str | None = None


class Backend(Protocol):
    """A trainer. Only the holder of the job's lock calls it: repeatedly, and perhaps from several processes in turn.

    Attributes:
        paid: whether a training costs money; then a failed one is not started again automatically.
        poll_s: seconds between two polls.
    """

    paid: ClassVar[bool]
    poll_s: float

    def advance(self, job: JobFolder) -> Report:
        """Start the training unless it has started, and report its state. Never waits for its end.

        May be killed at any point (``kill -9``) and called again by another process, so it must look for what it has
        started before it starts anything.

        Raises:
            LMError: the provider cannot be reached; with disposition ``retry`` the call may be repeated.
            FinetuneError: the job cannot continue by itself. If nothing was started, `Report` says failed instead.
        """

    def cancel(self, job: JobFolder) -> None:
        """Stop the training. `advance` reports when it has stopped; until then this is called again.

        Raises:
            LMError, FinetuneError: as `advance`.
        """
