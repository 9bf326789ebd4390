"""OpenAI as a provider. Its models are always up, so launch and kill do nothing; training goes through its API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.finetune.jobs.hyper import OpenAIHyper, seconds, whole
from runner.finetune.jobs.spec import Access, Base, Recipe
from runner.finetune.trainers.openai import OpenAITrainer
from runner.providers.names import is_openai
from runner.providers.trainable import TrainableProvider
from runner.secrets import from_env, redact

if TYPE_CHECKING:
    from runner.finetune.jobs.backend import Backend
    from runner.finetune.jobs.future import TrainingJob

KEY_ENV = "OPENAI_API_KEY"
PREFIX = "openai/"


class OpenAIProvider(TrainableProvider):
    """OpenAI's own models; as an LM's `provider`, also those of a server that speaks OpenAI's fine-tuning API.

    Training costs money, but only once for the same model, rows and settings. It returns ``openai/ft:...``. It learns from
    ``chat``, ``completion`` and ``preference`` data. ``train_kwargs`` has the fields of `runner.finetune.jobs.hyper.OpenAIHyper`;
    ``force`` pays for another attempt, ``poll_s`` is the seconds between two polls.
    """

    @staticmethod
    def is_provider_model(model: str) -> bool:
        """Return whether this is one of OpenAI's own models, fine-tuned (``ft:``) or not. The prefix ``openai/`` is optional.

        ``openai/`` before any other name means a server that speaks OpenAI's protocol, which this provider does not own.
        """
        return is_openai(model)

    def training(self, job: TrainingJob, model: str, settings: dict[str, Any]) -> tuple[Recipe, Backend]:
        """Have the rows uploaded and trained on. The key is that of the LM, else ``OPENAI_API_KEY``."""
        poll_s = seconds("poll_s", settings.pop("poll_s", 10.0))
        access = Access(job.connection.get("api_base"), KEY_ENV, poll_s)
        key = job.connection.get("api_key") or from_env(KEY_ENV, where="fine-tuning")
        recipe = Recipe("openai", base_of(model, access.api_base), whole(OpenAIHyper, settings), access)
        return recipe, OpenAITrainer(api_key=key, api_base=access.api_base, poll_s=poll_s)


def base_of(model: str, api_base: str | None) -> Base:
    """Describe the base model by its name and its server: the same name elsewhere is another model. Raises ConfigError."""
    name = model.removeprefix(PREFIX)
    if api_base is not None and redact(api_base) != api_base:
        raise ConfigError("fine-tuning: the address contains a password; pass the key as api_key")
    return Base(name, f"openai:{name}@{(api_base or 'https://api.openai.com/v1').rstrip('/')}")
