"""What a config with a section `finetune` asks: the model that comes of the training, which is done first, and only once."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import msgspec

from runner.config.schema import LiteLLMModel, LocalModel, Model, RunConfig, ServerModel
from runner.errors import FinetuneError
from runner.experiment import training as finetuning
from runner.experiment.experiment import Parts
from runner.finetune.jobs import ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.finetune.jobs.training import Training

SAY_EVERY_S = 5.0


def _never() -> bool:
    return False


def asking(config: RunConfig, model: str) -> RunConfig:
    """`config` asking the trained `model`, and training nothing.

    Args:
        config: the experiment that the model was trained for.
        model: the trained model as an LM names it: ``local/ft-...``, ``openai/ft:...``.
    """
    return msgspec.structs.replace(config, model=_named(config.model, model), finetune=None)


def untrained(config: RunConfig) -> RunConfig:
    """`config` asking the model as it is before training."""
    return msgspec.structs.replace(config, finetune=None)


def settled(config: RunConfig) -> RunConfig | None:
    """`config` asking the model that it trains, where that is trained already; None while it is not.

    Raises:
        ConfigError, DataError, RecordError: what is to be trained cannot be made out.
    """
    if config.finetune is None:
        return config
    model = trained_model(finetuning.prepare(config).spec.job)
    return asking(config, model) if model else None


def foreseen(config: RunConfig) -> RunConfig:
    """`config` as far as it can be told what it will ask before the training is done: a model that no cache knows anything of."""
    if (known := settled(config)) is not None:
        return known
    base = untrained(config)
    return msgspec.structs.replace(base, cache=msgspec.structs.replace(base.cache, mode="off"))


def train_first(config: RunConfig, notify: Callable[[str], None], *, stop: Callable[[], bool] = _never) -> RunConfig:
    """`config` asking the model that it trains, once it is trained: this waits for it. Without `finetune`, `config` itself.

    The training outlives this process, and is begun once for all that ask for the same.

    Args:
        config: the experiment.
        notify: told what happens, a line at a time.
        stop: whether to wait no longer; the training goes on.

    Raises:
        ConfigError, DataError: found before anything is begun, in the run as well as in the training.
        FinetuneError, LaunchError: it could not be begun, or has failed.
        asyncio.CancelledError: `stop` said so.
    """
    if config.finetune is None:
        return config
    parts = Parts.of(untrained(config))
    parts.adapter.format(next(iter(parts.dataset)))
    parts.lm.request(prompt="")
    prepared = finetuning.prepare(config)
    job = prepared.spec.job
    if (model := trained_model(job)) is None:
        training = prepared.open()
        training.begin()
        notify(f"training {job}: it goes on if this command ends (ostinato ft attach {job})")
        model = followed(training, notify, stop)
    return asking(config, model)


def trained_model(job: str) -> str | None:
    """The model that a job has made; None while it has not, or is not in the ledger."""
    with contextlib.suppress(FinetuneError):
        return ledger.find(job).state().model
    return None


def to_be_asked(config: RunConfig) -> RunConfig:
    """`config` asking the model that it will train, by the name that it will have, where that is known before."""
    if config.finetune is None:
        return config
    spec = finetuning.prepare(config).spec
    return asking(config, f"local/ft-{spec.job}") if spec.provider in ("local", "command") else untrained(config)


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
