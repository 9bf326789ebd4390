"""A training job as a future, and the words for its data and its state. Knows nothing of how training is done."""

from __future__ import annotations

from concurrent.futures import Future
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threading import Thread


class TrainDataFormat(StrEnum):
    """What a row of training data looks like (the names are dspy's)."""

    CHAT = "chat"
    """``{"messages": [...]}``: the last message is the assistant's and is what is learned."""
    COMPLETION = "completion"
    """``{"prompt": "...", "completion": "..."}``."""
    PREFERENCE = "preference"
    """A prompt with a chosen and a rejected answer."""
    GRPO_CHAT = "grpo_chat"
    """``{"messages": [...], "completion": {...}, "reward": float}``, in groups that share their messages."""


class TrainingStatus(StrEnum):
    """Where a training job stands. The last three are final."""

    not_started = "not_started"
    pending = "pending"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


class TrainingJob(Future[Any]):
    """A training job: a `concurrent.futures.Future` whose `result()` is an LM that answers with the trained model.

    Follows dspy 2.6's class of this name, except that `status` has a default and `cancel` answers as every future does.
    Whoever runs the job calls `set_running_or_notify_cancel` first and `set_result` or `set_exception` last. A provider that
    trains elsewhere derives from this class, asks that place in `status` and `cancel`, and names the class in its
    `TrainingJob` attribute.

    Attributes:
        thread: the thread that waits for the training, once there is one.
        model: the model that is trained.
        train_data: the rows, in `train_data_format`.
        train_data_format: what a row looks like.
        train_kwargs: the provider's own settings.
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

    def status(self) -> TrainingStatus:
        """Where the job stands, as the future itself knows it. Never blocks."""
        if self.cancelled():
            return TrainingStatus.cancelled
        if self.done():
            return TrainingStatus.failed if self.exception() else TrainingStatus.succeeded
        if self.running():
            return TrainingStatus.running
        return TrainingStatus.not_started if self.thread is None else TrainingStatus.pending

    def cancel(self) -> bool:
        """Cancel the job if it has not begun.

        A subclass that can also stop a job under way does so, then calls this.

        Returns:
            True if the job is cancelled; False if it runs or is done.
        """
        return super().cancel()
