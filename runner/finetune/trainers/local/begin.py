"""Make the training loop of a job's folder: its rows as lessons, the machine, and the newest checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.finetune.trainers.local import checkpoint
from runner.finetune.trainers.local.loop import Loop
from runner.finetune.trainers.local.machine import chosen
from runner.finetune.trainers.local.recipe import Plan
from runner.finetune.trainers.local.rows import lessons, pairs
from runner.finetune.trainers.local.trl import TRL

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.finetune.jobs.hyper import LocalHyper
    from runner.finetune.jobs.ledger import JobFolder
    from runner.finetune.trainers.local.base import Loaded, Tokenizer


def begun(job: JobFolder, hyper: LocalHyper, loaded: Loaded, *, asked_to_stop: Callable[[], bool]) -> Loop | TRL:
    """Make the loop that the settings choose, in the state of the job's newest checkpoint.

    Args:
        job: the job's folder.
        hyper: its settings.
        loaded: the base; its model gets an adapter.
        asked_to_stop: whether to stop; called repeatedly.

    Raises:
        DataError: a row cannot be learned.
        FinetuneError: the settings do not fit the model or the machine.
    """
    folder = job.path / "checkpoints"
    last = next((position for _, position in checkpoint.sealed(folder)), None)
    machine = chosen(hyper, threads=last.threads if last else None)

    def report(line: dict[str, Any]) -> None:
        job.measured(**line)

    train, valid = (_learned(job, name, loaded.tokenizer, hyper.max_length) for name in ("train", "valid"))
    plan = Plan(hyper, machine, train, valid)
    if hyper.backend == "trl":
        return TRL(loaded.model, plan, folder=folder, report=report, asked_to_stop=asked_to_stop)
    loop = Loop(
        loaded.model,
        plan,
        report=report,
        keep=lambda position, tensors: checkpoint.save(folder, position, tensors),
        asked_to_stop=asked_to_stop,
    )
    if found := checkpoint.newest(folder):
        loop.restore(*found)
    return loop


def _learned(job: JobFolder, name: str, tokenizer: Tokenizer, max_length: int) -> list[Any]:
    """Read the training rows (``train``) or the validation rows (``valid``)."""
    file, form = job.path / f"{name}.jsonl", job.spec.train_data_format
    if form == "preference":
        return pairs(file, tokenizer, max_length=max_length)
    return lessons(file, form, tokenizer, max_length=max_length)
