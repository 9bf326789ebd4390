"""Databricks as a provider: its foundation-model training, with the settings of dspy's provider of this name."""

from __future__ import annotations

import os

from runner.errors import ConfigError
from runner.finetune.spec import Base


def host_of(given: str | None) -> str:
    """The workspace's address: given, else that in ``DATABRICKS_HOST``. Raises ConfigError when there is none."""
    host = given or os.environ.get("DATABRICKS_HOST", "").strip()
    if not host:
        raise ConfigError("which Databricks workspace? give finetune.host, or set the environment variable DATABRICKS_HOST")
    return host.rstrip("/") if "://" in host else f"https://{host.rstrip('/')}"


def base_of(model: str, host: str) -> Base:
    """The base model by its name in the workspace."""
    name = model.removeprefix("databricks/")
    return Base(name, f"databricks:{name}@{host}")
