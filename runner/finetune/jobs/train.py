"""Train a model through the ledger, for every provider."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from runner.errors import FinetuneError
from runner.finetune.data.check import Requirements, check, located
from runner.finetune.data.formats import TrainDataFormat
from runner.finetune.jobs.ledger import JobFolder, State
from runner.finetune.jobs.spec import Recipe, Spec, check_format, facts_of
from runner.finetune.jobs.status import TrainingStatus
from runner.finetune.jobs.training import Training

if TYPE_CHECKING:
    from runner.finetune.data.rows import Row
    from runner.finetune.jobs.backend import Backend
    from runner.finetune.jobs.future import TrainingJob


def train(
    job: TrainingJob,
    recipe: Recipe,
    train_data: list[Row],
    train_data_format: TrainDataFormat | str | None,
    backend: Backend,
    *,
    force: bool = False,
) -> str:
    """Train and wait for the end. The same base, rows and settings are one job, which is followed if it exists.

    Args:
        job: the future; its `training` is set, through which it is cancelled and queried.
        recipe: how the model is trained.
        train_data: the rows.
        train_data_format: the format of a row; None: chat.
        backend: the trainer.
        force: make another attempt, whatever the result of the last one.

    Returns:
        The trained model's name.

    Raises:
        ConfigError: the provider cannot learn from this format.
        DataError: the rows are not what the format says.
        FinetuneError: the training failed or cannot be started.
        CancelledError: it was cancelled.
    """
    form = TrainDataFormat(train_data_format or TrainDataFormat.CHAT)
    check_format(recipe, form)
    check(located(train_data, "train_data"), Requirements(form, recipe.window, text_only=recipe.provider == "local"))
    folder = JobFolder.create(Spec.make(recipe, form, facts_of(train_data)), train_data)
    job.training = Training(folder, backend)
    state = job.training.begin(force=force)
    return outcome(folder, state if state.status.final else job.training.follow())


def outcome(folder: JobFolder, state: State) -> str:
    """Return the trained model's name. Raises FinetuneError or CancelledError if there is none."""
    if state.status is TrainingStatus.cancelled:
        raise CancelledError(f"the training {folder.spec.job} was cancelled")
    if state.status is not TrainingStatus.succeeded or state.model is None:
        raise FinetuneError(f"the training {folder.spec.job} has failed: {state.error}")
    return state.model
