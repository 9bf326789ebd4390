"""Databricks as a provider: its foundation-model training, with the settings of dspy's DatabricksProvider."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.finetune.jobs.hyper import DatabricksHyper, seconds, whole
from runner.finetune.jobs.spec import Access, Base, Recipe
from runner.finetune.trainers.databricks import DatabricksTrainer
from runner.providers.trainable import TrainableProvider
from runner.secrets import from_env, remember

if TYPE_CHECKING:
    from runner.finetune.jobs.backend import Backend
    from runner.finetune.jobs.future import TrainingJob

TOKEN_ENV = "DATABRICKS_TOKEN"  # noqa: S105 - the variable's name
PREFIX = "databricks/"
_VOLUME = re.compile(r"/Volumes/[^/]+/[^/]+/[^/]+(/[^/]+)+")


class DatabricksProvider(TrainableProvider):
    """Train in a Databricks workspace and serve the result there: ``LM("databricks/...", provider=DatabricksProvider())``.

    As in dspy it is never inferred, since models of other makers are served there too. Never tested against a real workspace (see
    `runner.finetune.trainers.databricks`).

    Training costs money, but only once for the same model, rows and settings. It returns ``databricks/ENDPOINT``. It learns from
    ``chat`` and ``completion`` data. ``train_kwargs`` are dspy's: ``train_data_path`` and ``register_to``, which are needed,
    ``databricks_host``, ``databricks_token``, ``skip_deploy``, and the fields of `runner.finetune.jobs.hyper.DatabricksHyper`;
    ``force`` pays for another attempt, ``poll_s`` is the seconds between two polls.
    """

    def training(self, job: TrainingJob, model: str, settings: dict[str, Any]) -> tuple[Recipe, Backend]:  # noqa: ARG002
        """Have the rows uploaded to a volume, trained on, and the model registered and served."""
        poll_s = seconds("poll_s", settings.pop("poll_s", 30.0))
        host = host_of(settings.pop("databricks_host", None))
        token = settings.pop("databricks_token", None) or from_env(TOKEN_ENV, where="fine-tuning")
        remember(token)
        hyper = checked(whole(DatabricksHyper, settings))
        recipe = Recipe("databricks", base_of(model, host), hyper, Access(host, TOKEN_ENV, poll_s))
        return recipe, DatabricksTrainer(host=host, token=token, poll_s=poll_s)


def host_of(given: str | None) -> str:
    """Return the workspace's address: `given`, or else ``DATABRICKS_HOST``. Raises ConfigError if neither is set."""
    host = given or os.environ.get("DATABRICKS_HOST", "").strip()
    if not host:
        raise ConfigError("no Databricks workspace is named; give finetune.host, or set the environment variable DATABRICKS_HOST")
    return host.rstrip("/") if "://" in host else f"https://{host.rstrip('/')}"


def base_of(model: str, host: str) -> Base:
    """Describe the base model by its name in the workspace."""
    name = model.removeprefix(PREFIX)
    return Base(name, f"databricks:{name}@{host}")


def checked(hyper: dict[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters if their paths are valid. Raises ConfigError otherwise."""
    rows, model = str(hyper["train_data_path"]), str(hyper["register_to"])
    if not _VOLUME.fullmatch(rows.rstrip("/")):
        raise ConfigError(f"train_data_path {rows!r}: give a folder in a volume, /Volumes/CATALOG/SCHEMA/VOLUME/...")
    if not re.fullmatch(r"[^./\s]+(\.[^./\s]+){2}", model):
        raise ConfigError(f"register_to {model!r}: give a model in Unity Catalog, CATALOG.SCHEMA.NAME")
    return hyper
