"""What a config with a section `finetune` asks: the model that comes of the training, which is done first, and only once."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import msgspec

from runner.config.schema import LiteLLMModel, LocalModel, Model, ServerModel
from runner.errors import FinetuneError
from runner.finetune.jobs import ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.experiment.prepared import Prepared
    from runner.finetune.jobs.training import Training

SAY_EVERY_S = 5.0


def _never() -> bool:
    return False


def asking(prepared: Prepared, model: str) -> Prepared:
    """Return the experiment asking the trained `model`, and training nothing.

    Args:
        prepared: the experiment that the model was trained for.
        model: the trained model as an LM names it: ``local/ft-...``, ``openai/ft:...``.
    """
    return prepared.replace(model=_named(prepared.config.model, model), finetune=None)


def untrained(prepared: Prepared) -> Prepared:
    """Return the experiment asking the model as it is before training."""
    return prepared.replace(finetune=None)


def settled(prepared: Prepared) -> Prepared | None:
    """Return the experiment asking the model that it trains; None while that is not trained.

    Raises:
        ConfigError, DataError, RecordError: what is to be trained cannot be determined.
    """
    if prepared.config.finetune is None:
        return prepared
    model = trained_model(prepared.training.spec.job)
    return asking(prepared, model) if model else None


def foreseen(prepared: Prepared) -> Prepared:
    """Return the experiment as far as it is known before the training is done. Then no cache has an answer of its model."""
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
        ConfigError, DataError: found before anything is begun, in the run as well as in the training.
        FinetuneError, LaunchError: it could not be begun, or has failed.
        asyncio.CancelledError: `stop` said so.
    """
    if prepared.config.finetune is None:
        return prepared
    prepared.parts()  # finds what is wrong with the run before the training begins
    job = prepared.training.spec.job
    if (model := trained_model(job)) is None:
        training = prepared.training.open()
        training.begin()
        notify(f"training {job}: it goes on if this command ends (ostinato ft attach {job})")
        model = followed(training, notify, stop)
    return asking(prepared, model)


def trained_model(job: str) -> str | None:
    """The model that a job has made; None while it has not, or is not in the ledger."""
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
    """How far a training has come, in a line for people; None before its first step."""
    last = training.folder.metrics()[-1:]
    return f"training: step {last[0]['step']}, loss {last[0].get('loss', float('nan')):.3f}" if last else None


def followed(training: Training, notify: Callable[[str], None], stop: Callable[[], bool]) -> str:
    """Wait for a training, and say now and then how it goes. Returns the model. Raises as `train_first`."""
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
    """The trained model, reached and sampled as the base is where it is of the same kind."""
    provider, _, name = model.partition("/")
    if provider == "local":
        return msgspec.structs.replace(base if isinstance(base, LocalModel) else LocalModel(), name=name)
    if isinstance(base, ServerModel):
        return msgspec.structs.replace(base, name=name if provider == "openai" else model)
    return msgspec.structs.replace(base if isinstance(base, LiteLLMModel) else LiteLLMModel(), name=model)
