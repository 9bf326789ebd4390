"""A training job as its user holds it: a future."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from runner.finetune.data.formats import TrainDataFormat
from runner.finetune.jobs.status import TrainingStatus

if TYPE_CHECKING:
    from threading import Thread

    from runner.finetune.jobs.training import Training


class TrainingJob(Future[Any]):
    """A training job: a `concurrent.futures.Future` whose `result()` is an LM that answers with the trained model.

    Follows dspy 2.6's class of this name, except that `status` has a default and `cancel` returns what every future's does.
    The code that runs the job calls `set_running_or_notify_cancel` first and `set_result` or `set_exception` last.

    A provider that keeps its jobs in the ledger sets `training`. From then on `status`, `cancel`, `logs` and `metrics` are about
    the training itself, which outlives this process: find it again by calling `LM.finetune` with the same data and settings, or
    with ``ostinato ft attach``.

    Attributes:
        thread: the thread that waits for the training, once it has started.
        model: the model that is trained.
        train_data: the rows, in `train_data_format`.
        train_data_format: what a row looks like.
        train_kwargs: the provider's own settings.
        connection: the LM's ``api_base`` and ``api_key``, if it has them, for reaching its provider.
        training: the training in the ledger, once it exists.
    """

    def __init__(
        self,
        thread: Thread | None = None,
        model: str | None = None,
        train_data: list[dict[str, Any]] | None = None,
        train_data_format: TrainDataFormat | str | None = None,
        train_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.thread = thread
        self.model = model
        self.train_data = train_data
        self.train_data_format = None if train_data_format is None else TrainDataFormat(train_data_format)
        self.train_kwargs = train_kwargs or {}
        self.connection: dict[str, str] = {}
        self.training: Training | None = None

    def status(self) -> TrainingStatus:
        """Return the job's status as the ledger and the future know it. Does not use the network."""
        if self.cancelled():
            return TrainingStatus.cancelled
        if self.done():
            return TrainingStatus.failed if self.exception() else TrainingStatus.succeeded
        if self.training is not None and not (known := self.training.folder.state().status).final:
            return known
        if self.running():
            return TrainingStatus.running
        return TrainingStatus.not_started if self.thread is None else TrainingStatus.pending

    def cancel(self) -> bool:
        """Cancel the job: at once if it has not started, else by making its provider stop the training.

        Returns:
            True if the job is cancelled, or will be once the provider has stopped it. False if it is done, or its provider
            cannot stop it.
        """
        if super().cancel():
            return True
        if self.done() or self.training is None:
            return False
        self.training.folder.ask_to_cancel()
        return True

    def cancelled(self) -> bool:
        """Return whether the job was cancelled, before it started or while it ran."""
        return super().cancelled() or (
            self.done() and self.training is not None and self.training.folder.state().status is TrainingStatus.cancelled
        )

    def logs(self) -> str:
        """Return the training's log so far; empty before it has started."""
        return "" if self.training is None else self.training.folder.log()

    def metrics(self) -> list[dict[str, Any]]:
        """Return the measurements by step: ``[{"step": 1, "loss": 2.1, ...}, ...]``; empty before the first step."""
        return [] if self.training is None else self.training.folder.metrics()
