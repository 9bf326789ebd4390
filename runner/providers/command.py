"""Models on this machine that a program of the user's own trains: axolotl, LLaMA-Factory, a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.finetune.child import ChildTrainer
from runner.finetune.hyper import CommandHyper, whole
from runner.finetune.train import train
from runner.providers.bases import base_of
from runner.providers.local import PREFIX, LocalProvider

if TYPE_CHECKING:
    from runner.finetune.job import TrainDataFormat, TrainingJob


class CommandProvider(LocalProvider):
    """As `LocalProvider`, but for who trains: ``LM("local/smollm2", provider=CommandProvider())``. Never inferred."""

    @staticmethod
    def is_provider_model(model: str) -> bool:  # noqa: ARG004 - those that it serves are the local provider's
        """No model is its by name."""
        return False

    def finetune(
        self,
        job: TrainingJob,
        model: str,
        train_data: list[dict[str, Any]],
        train_data_format: TrainDataFormat | str | None,
        train_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Run ``train_kwargs["command"]`` (see `runner.finetune.command`) and adopt its output.

        Raises:
            ConfigError: no command, or an unknown setting.
            FinetuneError: it failed.
        """
        given = dict(train_kwargs or {})
        force = bool(given.pop("force", False))
        return train(
            job,
            provider="command",
            base=base_of(model.removeprefix(PREFIX)),
            rows=train_data,
            train_data_format=train_data_format,
            hyper=whole(CommandHyper, given),
            backend=ChildTrainer("runner.finetune.command"),
            force=force,
        )
