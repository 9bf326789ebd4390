"""The parts that both backends share: the plan, the adapter, and the learning rate of each step.

LoRA is that of Hu et al. 2021 (arXiv:2106.09685), the schedule a linear warm-up and then half a cosine (Loshchilov and Hutter
2017, arXiv:1608.03983).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from runner.errors import FinetuneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.finetune.jobs.hyper import LocalHyper
    from runner.finetune.trainers.local.machine import Machine
    from runner.finetune.trainers.local.rows import Lesson, Pair

RowT = TypeVar("RowT", bound="Lesson | Pair")


class Plan(NamedTuple, Generic[RowT]):
    """The rows to learn, the settings and the hardware.

    Attributes:
        hyper: the settings.
        machine: the hardware.
        train: the training rows.
        valid: the validation rows.
    """

    hyper: LocalHyper
    machine: Machine
    train: Sequence[RowT]
    valid: Sequence[RowT]

    @property
    def steps(self) -> int:
        """Steps of the optimiser in all."""
        return self.hyper.steps(len(self.train))

    @property
    def eval_every(self) -> int:
        """Steps between two validations; by default those of an epoch."""
        return self.hyper.eval_every or self.hyper.steps_an_epoch(len(self.train))


def rate(hyper: LocalHyper, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0, out of `steps`."""
    warm = math.ceil(hyper.warmup_ratio * steps)
    if step < warm:
        return hyper.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return hyper.lr * (hyper.lr_min_ratio + (1 - hyper.lr_min_ratio) * (1 + math.cos(math.pi * done)) / 2)


def adapted(model: Any, hyper: LocalHyper) -> Any:
    """Add a new LoRA adapter to the chosen projections and layers of a model, and freeze everything else.

    Raises:
        FinetuneError: the model has no such layers or projections.
    """
    import peft

    depth = model.config.num_hidden_layers
    layers = _layers(hyper.layers, depth)
    config = peft.LoraConfig(
        r=hyper.lora_r,
        lora_alpha=hyper.lora_alpha,  # type: ignore[arg-type]  # a float works as well
        lora_dropout=hyper.lora_dropout,
        target_modules=list(hyper.lora_targets),
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise FinetuneError(f"finetune.lora_targets: {str(error).splitlines()[0]}") from None


def _layers(text: str | None, depth: int) -> list[int]:
    """Parse ``15-29`` or ``7``; None: the upper half."""
    if text is None:
        return list(range(depth // 2, depth))
    first, _, last = text.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        raise FinetuneError(f"finetune.layers: '{text}' is not a range of layers; write, for example, 15-29") from None
    if not 0 <= low <= high < depth:
        raise FinetuneError(f"finetune.layers: {text}, but the model has layers 0-{depth - 1}")
    return list(range(low, high + 1))
