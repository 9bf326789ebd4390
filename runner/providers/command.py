"""Models on this machine that are trained by the user's own program: axolotl, LLaMA-Factory, a script."""

from __future__ import annotations

from runner.finetune.jobs.hyper import CommandHyper
from runner.providers.local import LocalProvider


class CommandProvider(LocalProvider):
    """A `LocalProvider` that trains with a command: ``LM("local/smollm2", provider=CommandProvider())``. Never inferred.

    `finetune` runs ``train_kwargs["command"]`` and adopts its output (see `runner.finetune.trainers.command`).
    """

    trains_as = "command"
    trainer = "runner.finetune.trainers.command"
    hyper = CommandHyper

    @staticmethod
    def is_provider_model(model: str) -> bool:  # noqa: ARG004 - those that it serves are the local provider's
        """Return False: no model name belongs to this provider."""
        return False
