"""Databricks as a provider: its foundation-model training, with the settings of dspy's provider of this name."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.finetune.jobs.hyper import DatabricksHyper, seconds, whole
from runner.finetune.jobs.spec import Access, Base
from runner.finetune.jobs.train import train
from runner.finetune.trainers.databricks import DatabricksTrainer
from runner.providers.base import Provider
from runner.secrets import from_env, remember

if TYPE_CHECKING:
    from runner.finetune.data.formats import TrainDataFormat
    from runner.finetune.jobs.future import TrainingJob

TOKEN_ENV = "DATABRICKS_TOKEN"  # noqa: S105 - the variable's name
PREFIX = "databricks/"
_VOLUME = re.compile(r"/Volumes/[^/]+/[^/]+/[^/]+(/[^/]+)+")


class DatabricksProvider(Provider):
    """Trains in a Databricks workspace and serves the result there: ``LM("databricks/...", provider=DatabricksProvider())``.

    As in dspy it is never inferred: models of other makers are served there, too. Never tried against a real workspace (see
    `runner.finetune.trainers.databricks`).
    """

    finetunable = True

    def finetune(
        self,
        job: TrainingJob,
        model: str,
        train_data: list[dict[str, Any]],
        train_data_format: TrainDataFormat | str | None,
        train_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Upload the rows to a volume, train, register and serve; wait for it. Costs money, once for the same training.

        Args:
            job: the future.
            model: the model to start from, by its name there; ``databricks/`` is optional.
            train_data: the rows.
            train_data_format: ``chat`` or ``completion``.
            train_kwargs: dspy's: ``train_data_path`` and ``register_to``, which are needed, ``databricks_host``,
                ``databricks_token``, ``skip_deploy``, and what `runner.finetune.jobs.hyper.DatabricksHyper` has; ``force``
                pays for another attempt, ``poll_s`` is the seconds between two looks.

        Returns:
            ``databricks/ENDPOINT``.

        Raises:
            ConfigError: no workspace, no token, or a wrong setting.
            DataError: the rows are not what the format says.
            FinetuneError: the training failed or was refused.
        """
        given = dict(train_kwargs or {})
        force, poll_s = bool(given.pop("force", False)), seconds("poll_s", given.pop("poll_s", 30.0))
        host = host_of(given.pop("databricks_host", None))
        token = given.pop("databricks_token", None) or from_env(TOKEN_ENV, where="fine-tuning")
        remember(token)
        return train(
            job,
            provider="databricks",
            base=base_of(model, host),
            rows=train_data,
            train_data_format=train_data_format,
            hyper=checked(whole(DatabricksHyper, given)),
            backend=DatabricksTrainer(host=host, token=token, poll_s=poll_s),
            access=Access(host, TOKEN_ENV, poll_s),
            force=force,
        )


def host_of(given: str | None) -> str:
    """The workspace's address: given, else that in ``DATABRICKS_HOST``. Raises ConfigError when there is none."""
    host = given or os.environ.get("DATABRICKS_HOST", "").strip()
    if not host:
        raise ConfigError("which Databricks workspace? give finetune.host, or set the environment variable DATABRICKS_HOST")
    return host.rstrip("/") if "://" in host else f"https://{host.rstrip('/')}"


def base_of(model: str, host: str) -> Base:
    """The base model by its name in the workspace."""
    name = model.removeprefix(PREFIX)
    return Base(name, f"databricks:{name}@{host}")


def checked(hyper: dict[str, Any]) -> dict[str, Any]:
    """The hyper-parameters, when their places are such. Raises ConfigError."""
    rows, model = str(hyper["train_data_path"]), str(hyper["register_to"])
    if not _VOLUME.fullmatch(rows.rstrip("/")):
        raise ConfigError(f"train_data_path {rows!r}: give a folder in a volume, /Volumes/CATALOG/SCHEMA/VOLUME/...")
    if not re.fullmatch(r"[^./\s]+(\.[^./\s]+){2}", model):
        raise ConfigError(f"register_to {model!r}: give a model in Unity Catalog, CATALOG.SCHEMA.NAME")
    return hyper
