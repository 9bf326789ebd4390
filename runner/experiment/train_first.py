"""Train the model of a config with a section `finetune` first, once, and ask the trained model."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import msgspec

from runner.config.schema.model import LiteLLMModel, LocalModel, Model, ServerModel
from runner.errors import FinetuneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.experiment.prepared import Prepared
    from runner.finetune.jobs import ledger
    from runner.finetune.jobs.training import Training

SAY_EVERY_S = 5.0


def _never() -> bool:
    return False


def asking(prepared: Prepared, model: str) -> Prepared:
    """Return the experiment with the trained `model`, and without the training.

    Args:
        prepared: the experiment that the model was trained for.
        model: the trained model as an LM names it: ``local/ft-...``, ``openai/ft:...``.
    """
    return prepared.replace(model=_named(prepared.config.model, model), finetune=None)


def untrained(prepared: Prepared) -> Prepared:
    """Return the experiment with the untrained model."""
    return prepared.replace(finetune=None)


def settled(prepared: Prepared) -> Prepared | None:
    """Return the experiment with the model that it trains; None until that is trained.

    Raises:
        ConfigError, DataError, RecordError: what is to be trained cannot be determined.
    """
    if prepared.config.finetune is None:
        return prepared
    model = trained_model(prepared.training.spec.job)
    return asking(prepared, model) if model else None


def foreseen(prepared: Prepared) -> Prepared:
    """Return the experiment as far as it is known before the training. Until then no cache has answers of its model."""
    if (known := settled(prepared)) is not None:
        return known
    base = untrained(prepared)
    return base.replace(cache=msgspec.structs.replace(base.config.cache, mode="off"))


def train_first(prepared: Prepared, notify: Callable[[str], None], *, stop: Callable[[], bool] = _never) -> Prepared:
    """Train what the config asks for, wait for it, and return the experiment asking the trained model.

    The training outlives this process. Experiments that ask for the same training share one. Without a section `finetune`,
    `prepared` itself is returned.

    Args:
        prepared: the experiment.
        notify: called with what happens, one line at a time.
        stop: tells whether to stop waiting; the training continues.

    Raises:
        ConfigError, DataError: the run or the training could not begin; found before anything is started.
        FinetuneError, LaunchError: the training could not begin, or has failed.
        asyncio.CancelledError: `stop` returned True.
    """
    if prepared.config.finetune is None:
        return prepared
    prepared.parts().lm.request(prompt="")  # finds what is wrong with the run before the training begins
    job = prepared.training.spec.job
    if (model := trained_model(job)) is None:
        training = prepared.training.open()
        training.begin()
        notify(f"training {job}: it continues if this command ends (ostinato ft attach {job})")
        model = followed(training, notify, stop)
    return asking(prepared, model)


def trained_model(job: str) -> str | None:
    """Return the model of a training job; None while there is none, or if the job is not in the ledger."""
    from runner.finetune.jobs import ledger

    with contextlib.suppress(FinetuneError):
        return ledger.find(job).state().model
    return None


def to_be_asked(prepared: Prepared) -> Prepared:
    """Return the experiment asking the model that it will train, if the name of that is known before the training."""
    if prepared.config.finetune is None:
        return prepared
    spec = prepared.training.spec
    return asking(prepared, f"local/ft-{spec.job}") if spec.provider in ("local", "command") else untrained(prepared)


def progress_of(training: Training) -> str | None:
    """Describe the progress of a training in one line; None before its first step."""
    last = training.folder.metrics()[-1:]
    return f"training: step {last[0]['step']}, loss {last[0].get('loss', float('nan')):.3f}" if last else None


def followed(training: Training, notify: Callable[[str], None], stop: Callable[[], bool]) -> str:
    """Wait for a training, report its progress every `SAY_EVERY_S` seconds, and return the model. Raises as `train_first`."""
    said = time.monotonic()

    def watch(_state: ledger.State) -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_EVERY_S and (told := progress_of(training)):
            said = time.monotonic()
            notify(told)

    state = training.follow(watch=watch, stop=stop)
    if state.model is None:
        ended = f"has failed: {state.error}" if state.error else f"was {state.status}"
        raise FinetuneError(f"the training {training.folder.spec.job} {ended}")
    return state.model


def _named(base: Model, model: str) -> Model:
    """Return the trained model, with the settings of the base if it is of the same kind."""
    provider, _, name = model.partition("/")
    if provider == "local":
        return msgspec.structs.replace(base if isinstance(base, LocalModel) else LocalModel(thinking=base.thinking), name=name)
    if isinstance(base, ServerModel):
        return msgspec.structs.replace(base, name=name if provider == "openai" else model)
    return msgspec.structs.replace(base if isinstance(base, LiteLLMModel) else LiteLLMModel(thinking=base.thinking), name=model)
