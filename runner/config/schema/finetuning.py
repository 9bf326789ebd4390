"""Declare `finetune` and `gate`: how a model is trained, and when it is registered."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from runner.config.schema.base import Config, Count, Dollars, Fraction, Kind, Positive, Seconds, Text


class TrainingData(Config, frozen=True, kw_only=True):
    """Choose the training data: the rows of a file, or samples of a run."""

    path: Text | None = None
    format: Literal["chat", "completion", "preference"] = "chat"
    from_run: Text | None = None
    where: Text | None = None
    valid_fraction: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    split_seed: int = 0
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        if self.path is not None and "://" in self.path:
            raise ValueError("path names a file of this machine: training rows are not fetched")
        if self.path is not None and self.from_run is not None:
            raise ValueError("path and from_run are both given; keep one")
        if self.where is not None and self.from_run is None:
            raise ValueError("where selects samples of a run; give from_run, too")


class Finetune(Kind, frozen=True, kw_only=True):
    """Hold the fields that every kind of fine-tuning has."""

    base: Text | None = None
    data: TrainingData = TrainingData()


_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class LocalFinetune(Finetune, frozen=True, kw_only=True, tag="local"):
    """Train a LoRA adapter on this machine, with Ostinato's own trainer or with TRL."""

    backend: Literal["own", "trl"] = "own"
    epochs: Positive = 1
    max_steps: Positive | None = None
    lr: Annotated[float, Meta(gt=0)] = 3e-3
    batch_size: Positive = 4
    gradient_accumulation: Positive = 1
    warmup_ratio: Fraction = 0.1
    lr_min_ratio: Fraction = 0.05
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Meta(ge=0)] = 1.0
    lora_r: Positive = 8
    lora_alpha: Annotated[float, Meta(gt=0)] = 16.0
    lora_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    lora_targets: list[str] = msgspec.field(default_factory=_PROJECTIONS.copy)
    layers: Text | None = None
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
    beta: Annotated[float, Meta(gt=0)] | None = None


class OpenAIFinetune(Finetune, frozen=True, kw_only=True, tag="openai"):
    """Train with a job at OpenAI, or at a server with its fine-tuning API."""

    api_base: Text | None = None
    api_key_env: Text | None = None
    n_epochs: Positive | None = None
    batch_size: Positive | None = None
    learning_rate_multiplier: Annotated[float, Meta(gt=0)] | None = None
    beta: Annotated[float, Meta(gt=0)] | None = None
    seed: int | None = 0
    window: Positive | None = None
    usd_per_mtokens: Dollars | None = None
    poll_s: Seconds = 10.0


class DatabricksFinetune(Finetune, frozen=True, kw_only=True, tag="databricks"):
    """Train with a job of Databricks' foundation-model training, and serve the model from an endpoint there."""

    host: Text | None = None
    token_env: Text = "DATABRICKS_TOKEN"  # noqa: S105 - the variable's name
    train_data_path: Text | None = None
    register_to: Text | None = None
    training_duration: Text | None = None
    learning_rate: Annotated[float, Meta(gt=0)] | None = None
    context_length: Positive | None = None
    experiment_path: Text | None = None
    skip_deploy: bool = False
    poll_s: Seconds = 30.0


class CommandFinetune(Finetune, frozen=True, kw_only=True, tag="command"):
    """Train with a program of your own on this machine: axolotl, LLaMA-Factory, a script."""

    command: Text | None = None
    config: Text | None = None


FinetuneKind: TypeAlias = LocalFinetune | OpenAIFinetune | DatabricksFinetune | CommandFinetune


class Gate(Config, frozen=True, kw_only=True):
    """Decide when a pipeline registers the model that it trained."""

    metric: Text | None = None
    min_gain: float = 0.0
    cluster: Text | None = None
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.95
