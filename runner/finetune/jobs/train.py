"""From rows and settings to a trained model through the ledger: what every provider's `finetune` does."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from runner.errors import FinetuneError
from runner.finetune.data import check as data
from runner.finetune.data.formats import TrainDataFormat
from runner.finetune.jobs.ledger import JobFolder, State
from runner.finetune.jobs.spec import Access, Base, ProviderName, Spec, check_format, facts_of
from runner.finetune.jobs.status import TrainingStatus
from runner.finetune.jobs.training import Training

if TYPE_CHECKING:
    from runner.finetune.jobs.backend import Backend
    from runner.finetune.jobs.future import TrainingJob


def train(
    job: TrainingJob,
    *,
    provider: ProviderName,
    base: Base,
    rows: list[dict[str, Any]],
    train_data_format: TrainDataFormat | str | None,
    hyper: dict[str, Any],
    backend: Backend,
    access: Access | None = None,
    force: bool = False,
    window: int | None = None,
) -> str:
    """Train, or find that it is being trained, or was: the same base, rows and settings are one job. Waits for the end.

    Args:
        job: the future; gets its `training`, through which it is cancelled and asked.
        provider: who trains.
        base: what is trained.
        rows: the data.
        train_data_format: what a row looks like; None is chat.
        hyper: the whole hyper-parameters, defaults included.
        backend: who trains, ready to be asked.
        access: how a hosted provider is reached.
        force: make another attempt, whatever came of the last one.
        window: the tokens that a row may have.

    Returns:
        The trained model's name.

    Raises:
        DataError: the rows are not what the format says.
        FinetuneError: the training failed or could not be begun.
        CancelledError: it was cancelled.
    """
    form = TrainDataFormat(train_data_format or TrainDataFormat.CHAT)
    check_format(provider, form, hyper)
    data.check(data.located(rows, "train_data"), form, window=window, text_only=provider == "local")
    spec = Spec.make(provider=provider, base=base, train_data_format=form, data=facts_of(rows), hyper=hyper, access=access)
    folder = JobFolder.create(spec, rows)
    job.training = Training(folder, backend)
    state = job.training.begin(force=force)
    return outcome(folder, state if state.status.final else job.training.follow())


def outcome(folder: JobFolder, state: State) -> str:
    """The trained model's name. Raises FinetuneError and CancelledError when there is none."""
    if state.status is TrainingStatus.cancelled:
        raise CancelledError(f"the training {folder.spec.job} was cancelled")
    if state.status is not TrainingStatus.succeeded or state.model is None:
        raise FinetuneError(f"the training {folder.spec.job} has failed: {state.error}")
    return state.model
