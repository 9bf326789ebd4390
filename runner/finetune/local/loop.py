"""The training loop: LoRA on the answers of conversations. Knows nothing of job folders.

LoRA is that of Hu et al. 2021 (arXiv:2106.09685), AdamW that of Loshchilov and Hutter 2019 (arXiv:1711.05101), the schedule a
linear warm-up and then half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983). The output layer is computed at the learned
positions alone, which saves half a gigabyte and a fifth of the time where prompts are longer than answers.
"""

from __future__ import annotations

import math
import time
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.errors import FinetuneError
from runner.finetune.local.checkpoint import Position
from runner.finetune.local.rows import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from runner.finetune.hyper import LocalHyper
    from runner.finetune.local.machine import Machine
    from runner.finetune.local.rows import Lesson

Tensors = dict[str, dict[str, Any]]


class Outcome(NamedTuple):
    """What came of it: the adapter's weights by PEFT's names (of the best look, when stopping early), and where it ended."""

    weights: dict[str, torch.Tensor]
    position: Position
    valid_loss: float | None
    stopped: bool


class Loop:
    """One training.

    Args:
        model: the base in float32; gets an adapter.
        hyper: the settings.
        machine: what to compute with.
        train: what to learn.
        valid: what to look at now and then.
        report: told after each step: step, loss, lr, tokens, wall_s, and at a look valid_loss.
        keep: told where the training is, and its tensors, when a checkpoint is due.
        asked_to_stop: whether to stop after this step.
    """

    def __init__(
        self,
        model: Any,
        hyper: LocalHyper,
        machine: Machine,
        train: list[Lesson],
        valid: list[Lesson],
        *,
        report: Callable[[dict[str, Any]], None],
        keep: Callable[[Position, Tensors], None],
        asked_to_stop: Callable[[], bool],
    ) -> None:
        import torch

        self.hyper, self.machine, self.train, self.valid = hyper, machine, train, valid
        self.report, self.keep, self.asked_to_stop = report, keep, asked_to_stop
        torch.set_num_threads(machine.threads)
        torch.manual_seed(hyper.seed)
        self.model = adapted(model, hyper).to(machine.device)
        self.parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.optimiser = torch.optim.AdamW(self.parameters.values(), lr=hyper.lr, weight_decay=hyper.weight_decay)
        self.steps = hyper.steps(len(train))
        self.eval_every = hyper.eval_every or hyper.steps_an_epoch(len(train))
        self.best: dict[str, torch.Tensor] | None = None
        self.valid_loss: float | None = None
        self.position = Position(step=0, tokens=0, wall_s=0.0, threads=machine.threads)

    def restore(self, position: Position, tensors: Tensors) -> None:
        """Go on from a checkpoint."""
        import torch

        self._put(tensors["weights"])
        state = {}
        for number, name in enumerate(self.parameters):
            state[number] = {part: tensors["optimiser"][f"{part}:{name}"] for part in ("step", "exp_avg", "exp_avg_sq")}
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["random"]["cpu"])
        self.best = tensors.get("best")
        self.position = position

    def run(self) -> Outcome:
        """Train to the end, or until asked to stop; then a checkpoint is kept.

        Raises:
            FinetuneError: the loss is not a number any more.
        """
        began, before = time.perf_counter(), self.position.wall_s
        stopped = self.asked_to_stop()
        for groups in self._groups() if not stopped else ():
            loss, tokens = self._step(groups)
            if not math.isfinite(loss):
                raise FinetuneError(f"the loss at step {self.position.step + 1} is {loss}; try a smaller finetune.lr")
            self._move(loss, tokens, before + time.perf_counter() - began)
            enough = self._look()
            stopped = self.asked_to_stop()
            last = self.position.step >= self.steps or enough
            if stopped or (self.hyper.checkpoint_every and self.position.step % self.hyper.checkpoint_every == 0 and not last):
                self.keep(self.position, self._tensors())
            if stopped or last:
                stopped = stopped and not last
                break
        if self.best is not None and not stopped:
            self._put(self.best)
            self.valid_loss = self.position.best
        elif self.valid and not stopped and self.position.step % self.eval_every:  # else it was looked at just now
            self.valid_loss = self._valid_loss()
        return Outcome({name: value.detach() for name, value in self.parameters.items()}, self.position, self.valid_loss, stopped)

    def _put(self, weights: dict[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(weights[name])

    def _groups(self) -> Iterator[list[list[Lesson]]]:
        """The batches of each step that is still to be done; the same ones in every sitting."""
        hyper = self.hyper

        def drawn() -> Iterator[list[list[Lesson]]]:
            for epoch in count():
                stream = iter(batches(self.train, hyper.batch_size, seed=hyper.seed, epoch=epoch, bucket=hyper.bucket))
                while group := list(islice(stream, hyper.gradient_accumulation)):
                    yield group

        return islice(drawn(), self.position.step, self.steps)

    def _step(self, groups: list[list[Lesson]]) -> tuple[float, int]:
        """One step of the optimiser. Returns the mean loss of the tokens learned, and how many these are."""
        import torch

        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(self.position.step)
        self.model.train()
        tokens = sum(sum(lesson.learned) for batch in groups for lesson in batch)
        total = 0.0
        for batch in groups:
            loss = self._loss(batch) / max(tokens, 1)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        if self.hyper.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.hyper.max_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return total, tokens

    def _loss(self, batch: list[Lesson]) -> torch.Tensor:
        """The summed cross-entropy of the learned tokens, each predicted from all before it."""
        import torch

        longest = max(len(lesson.ids) for lesson in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        seen = torch.zeros(len(batch), longest, dtype=torch.long)
        learned = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, lesson in enumerate(batch):
            length = len(lesson.ids)
            ids[row, :length] = torch.tensor(lesson.ids)
            seen[row, :length] = 1
            learned[row, :length] = torch.tensor(lesson.learned)
        device = self.machine.device
        ids, seen, learned = ids.to(device), seen.to(device), learned.to(device)
        with self.machine.arithmetic():
            llama = self.model.get_base_model()
            hidden = llama.model(input_ids=ids, attention_mask=seen).last_hidden_state
            logits = llama.lm_head(hidden[:, :-1][learned[:, 1:]])
        return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][learned[:, 1:]], reduction="sum")

    def _rate(self, step: int) -> float:
        hyper = self.hyper
        warm = math.ceil(hyper.warmup_ratio * self.steps)
        if step < warm:
            return hyper.lr * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return hyper.lr * (hyper.lr_min_ratio + (1 - hyper.lr_min_ratio) * (1 + math.cos(math.pi * done)) / 2)

    def _move(self, loss: float, tokens: int, wall_s: float) -> None:
        before = self.position
        self.position = Position(
            step=before.step + 1,
            tokens=before.tokens + tokens,
            wall_s=round(wall_s, 3),
            threads=before.threads,
            best=before.best,
            worse=before.worse,
            loss=loss,
        )

    def _look(self) -> bool:
        """Report the step; look at the validation rows when that is due. Returns whether it has been long enough."""
        import msgspec

        hyper, at = self.hyper, self.position
        line: dict[str, Any] = {
            "step": at.step,
            "loss": at.loss,
            "lr": self._rate(at.step - 1),
            "tokens": at.tokens,
            "wall_s": at.wall_s,
        }
        if self.valid and at.step % self.eval_every == 0:
            loss = self.valid_loss = line["valid_loss"] = self._valid_loss()
            better = at.best is None or loss < at.best
            if better and hyper.early_stopping_patience:
                self.best = {name: value.detach().clone() for name, value in self.parameters.items()}
            best, worse = (loss, 0) if better else (at.best, at.worse + 1)
            self.position = msgspec.structs.replace(at, best=best, worse=worse)
        self.report(line)
        return bool(hyper.early_stopping_patience) and self.position.worse >= (hyper.early_stopping_patience or 0)

    def _valid_loss(self) -> float:
        import torch

        self.model.eval()
        tokens = sum(sum(lesson.learned) for lesson in self.valid)
        size = self.hyper.batch_size
        with torch.no_grad():
            losses = [self._loss(self.valid[at : at + size]).item() for at in range(0, len(self.valid), size)]
        return sum(losses) / max(tokens, 1)

    def _tensors(self) -> Tensors:
        import torch

        state = self.optimiser.state_dict()["state"]
        parts = ("step", "exp_avg", "exp_avg_sq")
        optimiser = {f"{part}:{name}": state[number][part] for number, name in enumerate(self.parameters) for part in parts}
        tensors: Tensors = {"weights": dict(self.parameters), "optimiser": optimiser, "random": {"cpu": torch.get_rng_state()}}
        return tensors if self.best is None else {**tensors, "best": self.best}


def arrays(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Weights as numpy's arrays in float32."""
    return {name: value.detach().float().cpu().numpy() for name, value in weights.items()}


def adapted(model: Any, hyper: LocalHyper) -> Any:
    """The model with a fresh LoRA adapter on the chosen projections and layers; all else is frozen.

    Raises:
        FinetuneError: the model has no such layers or projections.
    """
    import peft

    depth = model.config.num_hidden_layers
    layers = _layers(hyper.layers, depth)
    config = peft.LoraConfig(
        r=hyper.lora_r,
        lora_alpha=hyper.lora_alpha,  # type: ignore[arg-type]  # a float does as well
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
    """``15-29`` or ``7`` as numbers; None is the upper half."""
    if text is None:
        return list(range(depth // 2, depth))
    first, _, last = text.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        raise FinetuneError(f"finetune.layers: '{text}' is no range of layers; write 15-29") from None
    if not 0 <= low <= high < depth:
        raise FinetuneError(f"finetune.layers: {text}, and the model has the layers 0-{depth - 1}")
    return list(range(low, high + 1))
