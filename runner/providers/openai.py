"""OpenAI as a provider: its models are always up, so launch and kill do nothing; it trains over its API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.finetune.jobs.hyper import OpenAIHyper, seconds, whole
from runner.finetune.jobs.spec import Access, Base
from runner.finetune.jobs.train import train
from runner.finetune.trainers.openai import OpenAITrainer
from runner.providers.base import Provider
from runner.secrets import from_env, redact

if TYPE_CHECKING:
    from runner.finetune.data.formats import TrainDataFormat
    from runner.finetune.jobs.future import TrainingJob

KEY_ENV = "OPENAI_API_KEY"
PREFIX = "openai/"

# Families, not a list of models, which would be stale in a month. Open-weights models that carry the name are served elsewhere.
_BASE = (
    r"(?:gpt-(?!oss|neo|j\b)[\w.-]+|chatgpt-[\w.-]+|o[1-9]\d*(?:-[\w.-]+)?|codex-[\w.-]+|text-[\w.-]+|(?:babbage|davinci)-\d+)"
)
_MODEL = re.compile(rf"(?:(?:text-completion-)?openai/)?(?:{_BASE}|ft:{_BASE}:.+)")


class OpenAIProvider(Provider):
    """The models that OpenAI serves itself; as an LM's `provider` also those of a server that speaks its fine-tuning API."""

    finetunable = True

    @staticmethod
    def is_provider_model(model: str) -> bool:
        """Whether this is one of OpenAI's own models, ``ft:`` ones included; the prefix ``openai/`` is optional.

        ``openai/`` before any other name means a server that speaks OpenAI's protocol, which this provider does not own.
        """
        return _MODEL.fullmatch(model) is not None

    def finetune(
        self,
        job: TrainingJob,
        model: str,
        train_data: list[dict[str, Any]],
        train_data_format: TrainDataFormat | str | None,
        train_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Upload the rows, have them trained on, and wait. Costs money, once for the same model, rows and settings.

        Args:
            job: the future; of its `connection` the address and the key are used, else ``OPENAI_API_KEY``.
            model: the model to start from; ``openai/`` is optional.
            train_data: the rows.
            train_data_format: ``chat``, ``completion`` or ``preference``.
            train_kwargs: fields of `runner.finetune.jobs.hyper.OpenAIHyper`; ``force`` pays for another attempt, ``poll_s``
                is the seconds between two looks.

        Returns:
            ``openai/ft:...``.

        Raises:
            ConfigError: no key, or an unknown setting.
            DataError: the rows are not what the format says.
            FinetuneError: the training failed or was refused.
        """
        given = dict(train_kwargs or {})
        force, poll_s = bool(given.pop("force", False)), seconds("poll_s", given.pop("poll_s", 10.0))
        access = Access(job.connection.get("api_base"), KEY_ENV, poll_s)
        key = job.connection.get("api_key") or from_env(KEY_ENV, where="fine-tuning")
        return train(
            job,
            provider="openai",
            base=base_of(model, access.api_base),
            rows=train_data,
            train_data_format=train_data_format,
            hyper=whole(OpenAIHyper, given),
            backend=OpenAITrainer(api_key=key, api_base=access.api_base, poll_s=poll_s),
            access=access,
            force=force,
        )


def base_of(model: str, api_base: str | None) -> Base:
    """The base model by its name at the server; the same name elsewhere is another model. Raises ConfigError."""
    name = model.removeprefix(PREFIX)
    if api_base is not None and redact(api_base) != api_base:
        raise ConfigError("fine-tuning: the address holds a password; give the key by api_key")
    return Base(name, f"openai:{name}@{(api_base or 'https://api.openai.com/v1').rstrip('/')}")
