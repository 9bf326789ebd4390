"""What a trainer is to the ledger: one function that carries a job on as far as it goes now, and one that stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from runner.finetune.jobs.status import TrainingStatus

if TYPE_CHECKING:
    from runner.finetune.jobs.ledger import JobFolder


class Report(msgspec.Struct, frozen=True):
    """How a training stands, as its trainer sees it: `model` when it has succeeded, `error` when it has failed."""

    status: TrainingStatus
    model: str | None = None
    error: str | None = None


class Backend(Protocol):
    """Whoever trains. Called by the holder of the job's lock only, again and again, from one process or another.

    Attributes:
        paid: whether a training costs money, so that one that has failed is not begun again by itself.
        poll_s: seconds between two looks.
    """

    paid: ClassVar[bool]
    poll_s: float

    def advance(self, job: JobFolder) -> Report:
        """Begin the training unless it has begun, and say how it stands. Never waits for it.

        May be cut off at any point (``kill -9``) and called again by another process: it must find what it has begun before it
        begins anything.

        Raises:
            LMError: the provider could not be asked; with disposition ``retry`` it is worth asking again.
            FinetuneError: the job cannot go on by itself; where nothing was begun, `Report` says failed instead.
        """

    def cancel(self, job: JobFolder) -> None:
        """Have the training stopped; `advance` says when that has happened. Called again until then.

        Raises:
            LMError, FinetuneError: as `advance`.
        """
