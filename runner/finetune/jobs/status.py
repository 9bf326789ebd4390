"""The states of a training job."""

from __future__ import annotations

from enum import StrEnum


class TrainingStatus(StrEnum):
    """The status of a training job. The last three are final."""

    not_started = "not_started"
    pending = "pending"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"

    @property
    def final(self) -> bool:
        """True if the job has ended."""
        return self in (TrainingStatus.succeeded, TrainingStatus.failed, TrainingStatus.cancelled)
