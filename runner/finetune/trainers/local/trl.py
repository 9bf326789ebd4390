"""Train with TRL: SFTTrainer on conversations and completions, DPOTrainer on preferences.

Rows, template, tokenizer, mask, order and learning rates are those of the own loop; everything else is TRL's and transformers'. A
stop takes effect between batches, except during a validation. The loss of a validation is the mean of its batches' means, whereas
the own loop takes the mean over tokens.

DPO is that of Rafailov et al. 2023 (arXiv:2305.18290), against the base without its adapter.
"""

from __future__ import annotations

from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, ClassVar

from runner.finetune.trainers.local import checkpoint
from runner.finetune.trainers.local.checkpoint import Position
from runner.finetune.trainers.local.loop import Outcome
from runner.finetune.trainers.local.recipe import Plan, adapted, rate
from runner.finetune.trainers.local.rows import Lesson, Pair, order
from runner.finetune.trainers.local.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_UNLEARNED = -100
"""The label of a token that is not learned."""

_BETA = 0.1
"""How close DPO stays to the base by default: the value of Rafailov et al., and TRL's default."""


class TRL:
    """One training.

    Args:
        model: the base in float32; gets an adapter.
        plan: what is learned, and how.
        folder: the folder of checkpoints; training resumes from the newest.
        report: called after each step with step, loss, lr, tokens, wall_s; and after a validation with step, valid_loss.
        asked_to_stop: whether to stop; called after every batch.
    """

    def __init__(
        self,
        model: Any,
        plan: Plan[Lesson] | Plan[Pair],
        *,
        folder: Path,
        report: Callable[[dict[str, Any]], None],
        asked_to_stop: Callable[[], bool],
    ) -> None:
        import torch

        self.hyper, self.machine = plan.hyper, plan.machine
        self.train: Sequence[Lesson] | Sequence[Pair] = plan.train
        self.folder, self.report, self.asked_to_stop = folder, report, asked_to_stop
        self.steps, self.eval_every = plan.steps, plan.eval_every
        self._found = next(checkpoint.sealed(folder), None)
        self.position = self._found[1] if self._found else Position(step=0, tokens=0, wall_s=0.0, threads=self.machine.threads)
        torch.set_num_threads(self.machine.threads)
        torch.manual_seed(self.hyper.seed)
        self.model = adapted(model, self.hyper).to(self.machine.device)
        self.trainer = _trainer(self, _Order(self._rows, len(self.train)), plan.valid)

    def run(self) -> Outcome:
        """Train to the end, or until asked to stop; then keep a checkpoint.

        Raises:
            FinetuneError: the loss is no longer a number.
        """
        from transformers import TrainerCallback

        if self.asked_to_stop():
            return Outcome({}, self.position, None, stopped=True)
        watch = type("Watch", (Watch, TrainerCallback), {})(
            self.position, self._tokens(), folder=self.folder, report=self.report, asked_to_stop=self.asked_to_stop
        )
        self.trainer.add_callback(watch)
        self.trainer.train(resume_from_checkpoint=str(self._found[0]) if self._found else None)
        self.position = watch.position
        weights = {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}
        return Outcome(weights, self.position, None if watch.stopped else self._valid_loss(), watch.stopped)

    def _valid_loss(self) -> float | None:
        """Return the loss of the best validation with early stopping, of the last one if it was at the end, else of a new one."""
        if self.trainer.eval_dataset is None:
            return None
        state = self.trainer.state
        if self.hyper.early_stopping_patience and state.best_metric is not None:
            return float(state.best_metric)
        looks = [line["eval_loss"] for line in state.log_history if "eval_loss" in line and line["step"] == state.global_step]
        return float(looks[-1] if looks else self.trainer.evaluate()["eval_loss"])

    def _tokens(self) -> Iterator[int]:
        """Yield the number of tokens learned in each step."""
        size = self.hyper.batch_size * self.hyper.gradient_accumulation
        for epoch in count():
            rows = self._rows(epoch)
            while step := list(islice(rows, size)):
                yield sum(self.train[row].taught for row in step)

    def _rows(self, epoch: int) -> Iterator[int]:
        """Return the rows of an epoch, in their order."""
        hyper, lengths = self.hyper, [row.length for row in self.train]
        return chain.from_iterable(order(lengths, hyper.batch_size, seed=hyper.seed, epoch=epoch, bucket=hyper.bucket))


class _Order:
    """A sampler for torch: the rows of the current epoch."""

    def __init__(self, rows: Callable[[int], Iterator[int]], count: int) -> None:
        self._rows, self._count, self._epoch = rows, count, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Accelerate calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return self._rows(self._epoch)


class _Tokenised:
    """A mixin that makes TRL's trainers accept tokenised rows, in our order."""

    order: ClassVar[_Order]

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _get_train_sampler(self, *_: Any) -> _Order:
        return self.order

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no model card, since it would have no content."""


def _trainer(training: TRL, order_of_rows: _Order, valid: Sequence[Lesson] | Sequence[Pair]) -> Any:
    """Make TRL's trainer for these rows."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import EarlyStoppingCallback, PreTrainedTokenizerFast, PrinterCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    hyper, settings = training.hyper, _settings(training, looks=bool(valid))
    if isinstance(training.train[0], Pair):
        kind, collator = DPOTrainer, DataCollatorForPreference
        arguments = DPOConfig(beta=hyper.beta or _BETA, disable_dropout=False, **settings)
    else:
        kind, collator, arguments = SFTTrainer, DataCollatorForLanguageModeling, SFTConfig(**settings)
    optimiser = torch.optim.AdamW(
        [value for value in training.model.parameters() if value.requires_grad], lr=hyper.lr, weight_decay=hyper.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(hyper, step, training.steps) / hyper.lr)
    unused = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))  # type: ignore[no-untyped-call]
    made = type("Trainer", (_Tokenised, kind), {"order": order_of_rows})(
        model=training.model,
        args=arguments,
        data_collator=collator(pad_token_id=0),
        train_dataset=Dataset.from_list([_fields(row) for row in training.train]),
        eval_dataset=Dataset.from_list([_fields(row) for row in valid]) if valid else None,
        processing_class=unused,
        optimizers=(optimiser, schedule),
        callbacks=[EarlyStoppingCallback(hyper.early_stopping_patience)] if hyper.early_stopping_patience else [],
    )
    made.remove_callback(PrinterCallback)  # the log is for errors
    return made


def _settings(training: TRL, *, looks: bool) -> dict[str, Any]:
    """Translate our settings to transformers' names, and replace its defaults where they would change the training."""
    hyper, machine = training.hyper, training.machine
    best = bool(hyper.early_stopping_patience)
    return {
        "output_dir": str(training.folder),
        "max_steps": training.steps,
        "learning_rate": hyper.lr,
        "per_device_train_batch_size": hyper.batch_size,
        "per_device_eval_batch_size": hyper.batch_size,
        "gradient_accumulation_steps": hyper.gradient_accumulation,
        "max_grad_norm": hyper.max_grad_norm,
        "seed": hyper.seed,
        "use_cpu": machine.device == "cpu",
        "bf16": machine.dtype == "bf16",
        "dataloader_pin_memory": machine.device != "cpu",
        "max_length": None,  # rows that are too long have been refused
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
        "eval_strategy": "steps" if looks else "no",
        "eval_steps": training.eval_every,
        "save_steps": training.eval_every if best else hyper.checkpoint_every,  # the best one must be among those saved
        "save_total_limit": checkpoint.KEPT,
        "load_best_model_at_end": best,
        "metric_for_best_model": "eval_loss" if looks else None,
        "greater_is_better": False,
        "restore_callback_states_from_checkpoint": True,  # how long early stopping has waited
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
    }


def _fields(row: Lesson | Pair) -> dict[str, list[int]]:
    """Return a row by the names that TRL's collators use."""
    if isinstance(row, Pair):
        return {"prompt_ids": row.asked, "chosen_ids": row.preferred, "rejected_ids": row.other}
    labels = [number if learned else _UNLEARNED for number, learned in zip(row.ids, row.learned, strict=True)]
    return {"input_ids": row.ids, "labels": labels}
