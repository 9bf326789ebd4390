"""The training loop: LoRA on the answers of conversations.

AdamW is that of Loshchilov and Hutter 2019 (arXiv:1711.05101). The output layer is computed only at the learned positions,
which saves half a gigabyte and a fifth of the time if prompts are longer than answers.
"""

from __future__ import annotations

import math
import time
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.errors import FinetuneError
from runner.finetune.trainers.local.checkpoint import Position
from runner.finetune.trainers.local.recipe import Plan, adapted, rate
from runner.finetune.trainers.local.rows import order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from runner.finetune.trainers.local.rows import Lesson

Tensors = dict[str, dict[str, Any]]


class Outcome(NamedTuple):
    """The result: the adapter's weights by PEFT's names (of the best validation with early stopping), and the last position."""

    weights: dict[str, torch.Tensor]
    position: Position
    valid_loss: float | None
    stopped: bool


class _Stopped(Exception):  # noqa: N818 - a signal, not an error
    """Raised in the middle of a step or a validation that is not to be finished."""


class Loop:
    """One training.

    Args:
        model: the base in float32; gets an adapter.
        plan: what is learned, and how.
        report: called after each step with step, loss, lr, tokens, wall_s; and after a validation with step, valid_loss.
        keep: called with the position and the tensors when a checkpoint is due.
        asked_to_stop: whether to stop; called before every batch.
    """

    def __init__(
        self,
        model: Any,
        plan: Plan[Lesson],
        *,
        report: Callable[[dict[str, Any]], None],
        keep: Callable[[Position, Tensors], None],
        asked_to_stop: Callable[[], bool],
    ) -> None:
        import torch

        self.hyper, self.machine, self.train, self.valid = plan
        self.report, self.keep, self.asked_to_stop = report, keep, asked_to_stop
        torch.set_num_threads(self.machine.threads)
        torch.manual_seed(self.hyper.seed)
        self.model = adapted(model, self.hyper).to(self.machine.device)
        self.parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.optimiser = torch.optim.AdamW(self.parameters.values(), lr=self.hyper.lr, weight_decay=self.hyper.weight_decay)
        self.steps, self.eval_every = plan.steps, plan.eval_every
        self.best: dict[str, torch.Tensor] | None = None
        self.valid_loss: float | None = None
        self.position = Position(step=0, tokens=0, wall_s=0.0, threads=self.machine.threads)
        self._began = 0.0

    def restore(self, position: Position, tensors: Tensors) -> None:
        """Continue from a checkpoint."""
        self._put(tensors["weights"])
        state = {}
        for number, name in enumerate(self.parameters):
            state[number] = {part: tensors["optimiser"][f"{part}:{name}"] for part in ("step", "exp_avg", "exp_avg_sq")}
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self._draw_from(tensors["random"])
        self.best = tensors.get("best")
        self.position = position

    def run(self) -> Outcome:
        """Train to the end, or until asked to stop; then keep a checkpoint.

        A step or a validation that is interrupted counts as not done: the next process does it from the beginning.

        Raises:
            FinetuneError: the loss is no longer a number.
        """
        self._began = time.perf_counter() - self.position.wall_s
        stopped = False
        try:
            self._train()
        except _Stopped:
            stopped = True
            if self.position.step:
                self.keep(self.position, self._tensors())
        return Outcome({name: value.detach() for name, value in self.parameters.items()}, self.position, self.valid_loss, stopped)

    def _train(self) -> None:
        enough = self._look()  # the validation that an earlier process was stopped in
        for groups in self._groups() if not enough else ():
            self._move(*self._step(groups))
            enough = self._look()
            if enough or self.position.step >= self.steps:
                break
            if self.position.step % self.hyper.checkpoint_every == 0:
                self.keep(self.position, self._tensors())
        if self.best is not None:
            self._put(self.best)
            self.valid_loss = self.position.best
        elif self.valid and self.position.looked < self.position.step:
            self.valid_loss = self._valid_loss()

    def _put(self, weights: dict[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(weights[name])

    def _groups(self) -> Iterator[list[list[Lesson]]]:
        """Yield the batches of each remaining step; they are the same in every process."""
        hyper = self.hyper
        lengths = [lesson.length for lesson in self.train]

        def drawn() -> Iterator[list[list[Lesson]]]:
            for epoch in count():
                rows = iter(order(lengths, hyper.batch_size, seed=hyper.seed, epoch=epoch, bucket=hyper.bucket))
                while group := list(islice(rows, hyper.gradient_accumulation)):
                    yield [[self.train[row] for row in batch] for batch in group]

        return islice(drawn(), self.position.step, self.steps)

    def _step(self, groups: list[list[Lesson]]) -> tuple[float, int]:
        """Do one step of the optimiser. Return the mean loss per learned token, and the number of these tokens."""
        import torch

        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.hyper, self.position.step, self.steps)
        self.model.train()
        tokens = sum(lesson.taught for batch in groups for lesson in batch)
        total = 0.0
        before = self._random()
        try:
            for batch in groups:
                self._heed()
                loss = self._loss(batch) / max(tokens, 1)
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
        except _Stopped:
            self._draw_from(before)  # dropout has used it
            raise
        if self.hyper.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.hyper.max_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return total, tokens

    def _loss(self, batch: Sequence[Lesson]) -> torch.Tensor:
        """Sum the cross-entropy of the learned tokens, each predicted from all before it."""
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

    def _move(self, loss: float, tokens: int) -> None:
        at = self.position
        step, lr = at.step + 1, rate(self.hyper, at.step, self.steps)
        if not math.isfinite(loss):
            raise FinetuneError(f"the loss at step {step} is {loss}; try a smaller finetune.lr")
        wall_s = round(time.perf_counter() - self._began, 3)
        self.position = msgspec.structs.replace(at, step=step, tokens=at.tokens + tokens, wall_s=wall_s, loss=loss)
        self.report({"step": step, "loss": loss, "lr": lr, "tokens": self.position.tokens, "wall_s": wall_s})

    def _look(self) -> bool:
        """Validate if it is due and not yet done. Return whether to stop early."""
        at, patience = self.position, self.hyper.early_stopping_patience
        if self.valid and at.looked < at.step and at.step % self.eval_every == 0:
            loss = self.valid_loss = self._valid_loss()
            better = at.best is None or loss < at.best
            if better and patience:
                self.best = {name: value.detach().clone() for name, value in self.parameters.items()}
            best, worse = (loss, 0) if better else (at.best, at.worse + 1)
            self.position = msgspec.structs.replace(at, best=best, worse=worse, looked=at.step)
            self.report({"step": at.step, "valid_loss": loss})
        return patience is not None and self.position.worse >= patience

    def _valid_loss(self) -> float:
        import torch

        self.model.eval()
        tokens = sum(lesson.taught for lesson in self.valid)
        size = self.hyper.batch_size
        total = 0.0
        with torch.no_grad():
            for at in range(0, len(self.valid), size):
                self._heed()
                total += self._loss(self.valid[at : at + size]).item()
        return total / max(tokens, 1)

    def _heed(self) -> None:
        if self.asked_to_stop():
            raise _Stopped

    def _tensors(self) -> Tensors:
        state = self.optimiser.state_dict()["state"]
        parts = ("step", "exp_avg", "exp_avg_sq")
        optimiser = {f"{part}:{name}": state[number][part] for number, name in enumerate(self.parameters) for part in parts}
        tensors: Tensors = {"weights": dict(self.parameters), "optimiser": optimiser, "random": self._random()}
        return tensors if self.best is None else {**tensors, "best": self.best}

    def _random(self) -> dict[str, torch.Tensor]:
        """Return the states of the random generators that dropout may use: the CPU's, and the one of the model's GPU."""
        import torch

        states = {"cpu": torch.get_rng_state()}
        return {**states, "cuda": torch.cuda.get_rng_state()} if self.machine.device == "cuda" else states

    def _draw_from(self, states: dict[str, torch.Tensor]) -> None:
        """Set the states of the random generators."""
        import torch

        torch.set_rng_state(states["cpu"])
        if "cuda" in states and self.machine.device == "cuda":
            torch.cuda.set_rng_state(states["cuda"])


def arrays(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Convert weights to numpy arrays in float32."""
    return {name: value.detach().float().cpu().numpy() for name, value in weights.items()}
