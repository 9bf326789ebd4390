"""Watch a training of transformers from within: report each step, seal complete checkpoints, and stop it.

transformers writes checkpoints in place, and one that a kill has cut short looks like any other, so complete ones are sealed
here. They hold optimiser and generators as ``torch.save`` wrote them, and are read only as tensors (``weights_only``).
"""

from __future__ import annotations

import math
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import FinetuneError
from runner.finetune.jobs.ledger import SEAL
from runner.finetune.trainers.local import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.finetune.trainers.local.checkpoint import Position


class Watch:
    """The methods of our ``TrainerCallback``, which is made where transformers is imported.

    Args:
        position: the position at which the training starts.
        tokens: the tokens learned in each step, from the very first.
        folder: the folder of checkpoints.
        report: called after each step with step, loss, lr, tokens, wall_s; and after a validation with step, valid_loss.
        asked_to_stop: whether to stop; called after every batch.

    Attributes:
        position: the current position.
        stopped: whether the training was stopped before its end.
    """

    def __init__(
        self,
        position: Position,
        tokens: Iterator[int],
        *,
        folder: Path,
        report: Callable[[dict[str, Any]], None],
        asked_to_stop: Callable[[], bool],
    ) -> None:
        self.position, self.stopped = position, False
        self._folder, self._report, self._asked_to_stop = folder, report, asked_to_stop
        self._tokens = islice(tokens, position.step, None)
        self._began = time.perf_counter() - position.wall_s
        self._asked = False
        self._random: tuple[Any, Any] = (None, None)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Store the states of the random generators, which dropout uses."""
        import torch

        self._random = torch.get_rng_state(), torch.cuda.get_rng_state_all()

    def on_substep_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        """Stop between two batches of a step. The step counts as not done, so the random generators are reset."""
        import torch

        if self._asked_to_stop():
            torch.set_rng_state(self._random[0])
            torch.cuda.set_rng_state_all(self._random[1])
            self.stopped = control.should_training_stop = True
            control.should_save = state.global_step > 0 and not (self._place(state) / SEAL).exists()

    def on_step_end(self, _: Any, __: Any, control: Any, **___: Any) -> None:
        """Stop after a step, once everything due after it is done: a validation may come first, and may end the training."""
        self._asked = self._asked_to_stop()
        control.should_save |= self._asked

    def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, float], **___: Any) -> None:
        """Report a step or a validation."""
        step = state.global_step
        if "eval_loss" in logs:
            self._report({"step": step, "valid_loss": logs["eval_loss"]})
        if "loss" not in logs:
            return
        loss, at = logs["loss"], self.position
        if not math.isfinite(loss):
            raise FinetuneError(f"the loss at step {step} is {loss}; try a smaller finetune.lr")
        wall_s, tokens = round(time.perf_counter() - self._began, 3), at.tokens + next(self._tokens)
        self.position = msgspec.structs.replace(at, step=step, tokens=tokens, wall_s=wall_s, loss=loss)
        self._report({"step": step, "loss": loss, "lr": logs["learning_rate"], "tokens": tokens, "wall_s": wall_s})

    def on_save(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        """Seal a checkpoint that was written, unless it is the one at the end of a training, where nothing is to be resumed."""
        if control.should_training_stop and not self.stopped:
            return
        checkpoint.seal(self._place(state), self.position)
        if self._asked:
            self.stopped = control.should_training_stop = True

    def _place(self, state: Any) -> Path:
        return self._folder / f"checkpoint-{state.global_step}"
