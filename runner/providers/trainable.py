"""Providers that train through the ledger of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.finetune.jobs.train import train
from runner.providers.base import Provider

if TYPE_CHECKING:
    from runner.finetune.data.formats import TrainDataFormat
    from runner.finetune.jobs.backend import Backend
    from runner.finetune.jobs.future import TrainingJob
    from runner.finetune.jobs.spec import Recipe


class TrainableProvider(Provider):
    """Base of the providers whose trainings are jobs in the ledger. A subclass defines the training in `training`."""

    finetunable = True

    def training(self, job: TrainingJob, model: str, settings: dict[str, Any]) -> tuple[Recipe, Backend]:
        """Return how the model is trained, and the backend that trains it.

        Args:
            job: the future; the address and the key in its `connection` may be used.
            model: the model to start from.
            settings: the provider's own ``train_kwargs``, except ``force``.

        Raises:
            ConfigError: no key, no such model, or an unknown setting.
        """
        raise NotImplementedError

    def finetune(
        self,
        job: TrainingJob,
        model: str,
        train_data: list[dict[str, Any]],
        train_data_format: TrainDataFormat | str | None,
        train_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Train and wait for the end; once for the same model, rows and settings.

        Args:
            job: the future.
            model: the model to start from.
            train_data: the rows.
            train_data_format: what a row looks like; None is chat.
            train_kwargs: the provider's own settings, see the class; ``force`` makes another attempt.

        Returns:
            The name of the trained model.

        Raises:
            ConfigError: no key, no such model, an unknown setting, or a format that the provider cannot learn from.
            DataError: the rows are not what the format says.
            FinetuneError: the training failed or was refused.
        """
        settings = dict(train_kwargs or {})
        force = bool(settings.pop("force", False))
        recipe, backend = self.training(job, model, settings)
        return train(job, recipe, train_data, train_data_format, backend, force=force)
