"""The hyper-parameters of each provider: names, defaults and bounds. Defaults are filled in, since all are part of a job's id."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from runner.errors import ConfigError
from runner.secrets import holds_secret
from runner.wording.suggest import did_you_mean

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Rate = Annotated[float, Meta(gt=0)]
Weight = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Hyper(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base class of all hyper-parameters: frozen, keyword-only, and unknown names are refused."""


class LocalHyper(Hyper, frozen=True, kw_only=True):
    """The settings of the local trainer: LoRA, AdamW, cosine decay with warm-up, loss on the answer alone.

    The defaults train SmolLM2-135M to route tickets in a minute on two cores. ``conf/finetune/default.yaml`` documents each
    one, with its unit and source.
    """

    backend: Literal["own", "trl"] = "own"
    epochs: Positive = 1
    max_steps: Positive | None = None
    lr: Rate = 3e-3
    batch_size: Positive = 4
    gradient_accumulation: Positive = 1
    warmup_ratio: Share = 0.1
    lr_min_ratio: Share = 0.05
    weight_decay: Weight = 0.0
    max_grad_norm: Weight = 1.0
    lora_r: Positive = 8
    lora_alpha: Rate = 16.0
    lora_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    lora_targets: list[str] = msgspec.field(default_factory=PROJECTIONS.copy)
    layers: str | None = None
    merge: bool = False
    max_length: Positive = 2048
    seed: Count = 0
    threads: Positive | None = None
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_every: Positive = 25
    eval_every: Positive | None = None
    early_stopping_patience: Positive | None = None
    bucket: bool = True
    beta: Rate | None = None

    def steps_an_epoch(self, rows: int) -> int:
        """Return the optimiser steps in which each of so many rows is seen once."""
        return math.ceil(rows / (self.batch_size * self.gradient_accumulation))

    def steps(self, rows: int) -> int:
        """Return the optimiser steps in all: `max_steps`, else those of the epochs."""
        return self.max_steps or self.epochs * self.steps_an_epoch(rows)


class OpenAIHyper(Hyper, frozen=True, kw_only=True):
    """The settings of OpenAI's fine-tuning API; None: the server chooses."""

    n_epochs: Positive | None = None
    batch_size: Positive | None = None
    learning_rate_multiplier: Rate | None = None
    beta: Rate | None = None
    seed: int | None = 0


class DatabricksHyper(Hyper, frozen=True, kw_only=True):
    """The settings of Databricks' foundation-model training, by the names of dspy's ``train_kwargs``; None: it chooses."""

    train_data_path: str
    register_to: str
    training_duration: str | None = None
    learning_rate: Rate | None = None
    context_length: Positive | None = None
    experiment_path: str | None = None
    skip_deploy: bool = False


class CommandHyper(Hyper, frozen=True, kw_only=True):
    """The command of the command trainer, and the text of its config file (see `runner.finetune.trainers.command`)."""

    command: Annotated[list[str], Meta(min_length=1)]
    config: str | None = None


HyperT = TypeVar("HyperT", bound=Hyper)


def whole(kind: type[HyperT], given: dict[str, Any]) -> dict[str, Any]:
    """Check `given`, and return it with every default, as plain data.

    Raises:
        ConfigError: an unknown name, a value out of bounds, or a secret.
    """
    names = kind.__struct_fields__
    for name in given:
        if name not in names:
            raise ConfigError(f"train_kwargs: unknown setting '{name}'{did_you_mean(name, names)}")
    try:
        made: dict[str, Any] = msgspec.to_builtins(msgspec.convert(given, kind))
    except msgspec.ValidationError as error:
        raise ConfigError(f"train_kwargs: {error}") from None
    if holds_secret(msgspec.json.encode(made).decode()):  # it would be written to spec.json
        raise ConfigError("train_kwargs: a setting holds a secret; have the program read it from the environment")
    return made


def seconds(name: str, given: object) -> float:
    """Check a time in seconds: a number above 0. Raises ConfigError."""
    try:
        return msgspec.convert(given, Rate)
    except msgspec.ValidationError as error:
        raise ConfigError(f"train_kwargs: {name}: {error}") from None
