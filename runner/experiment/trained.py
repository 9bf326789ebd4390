"""The config of a model that was trained: what a config with a section `finetune` asks once the training is done."""

from __future__ import annotations

import msgspec

from runner.config.schema import LiteLLMModel, LocalModel, Model, RunConfig, ServerModel


def asking(config: RunConfig, model: str) -> RunConfig:
    """`config` asking the trained `model`, and training nothing.

    Args:
        config: the experiment that the model was trained for.
        model: the trained model as an LM names it: ``local/ft-...``, ``openai/ft:...``.
    """
    return msgspec.structs.replace(config, model=_named(config.model, model), finetune=None)


def untrained(config: RunConfig) -> RunConfig:
    """`config` asking the model as it is before training."""
    return msgspec.structs.replace(config, finetune=None)


def _named(base: Model, model: str) -> Model:
    """The trained model, reached and sampled as the base is where it is of the same kind."""
    provider, _, name = model.partition("/")
    if provider == "local":
        return msgspec.structs.replace(base if isinstance(base, LocalModel) else LocalModel(), name=name)
    if isinstance(base, ServerModel):
        return msgspec.structs.replace(base, name=name if provider == "openai" else model)
    return msgspec.structs.replace(base if isinstance(base, LiteLLMModel) else LiteLLMModel(), name=model)
