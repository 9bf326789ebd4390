"""Models on this machine that a program of the user's own trains: axolotl, LLaMA-Factory, a script."""

from __future__ import annotations

from runner.finetune.jobs.hyper import CommandHyper
from runner.providers.local import LocalProvider


class CommandProvider(LocalProvider):
    """As `LocalProvider`, but for who trains: ``LM("local/smollm2", provider=CommandProvider())``. Never inferred.

    `finetune` runs ``train_kwargs["command"]`` and adopts its output (see `runner.finetune.trainers.command`).
    """

    trains_as = "command"
    trainer = "runner.finetune.trainers.command"
    hyper = CommandHyper

    @staticmethod
    def is_provider_model(model: str) -> bool:  # noqa: ARG004 - those that it serves are the local provider's
        """No model is its by name."""
        return False
