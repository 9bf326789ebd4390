"""Find the trainer of a job in the ledger, to follow or stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from runner.finetune.jobs.spec import Access
from runner.finetune.trainers.child import ChildTrainer
from runner.finetune.trainers.databricks import DatabricksTrainer
from runner.finetune.trainers.openai import OpenAITrainer
from runner.secrets import from_env

if TYPE_CHECKING:
    from runner.finetune.jobs.backend import Backend
    from runner.finetune.jobs.spec import Spec


def backend_of(spec: Spec) -> Backend:
    """Make the trainer of this spec. Keys are read from the environment.

    Raises:
        ConfigError: the variable that holds the key is not set.
    """
    access = spec.access or Access()
    match spec.provider:
        case "local":
            return ChildTrainer("runner.finetune.trainers.local")
        case "command":
            return ChildTrainer("runner.finetune.trainers.command")
        case "openai":
            key = from_env(access.api_key_env or "OPENAI_API_KEY", where=f"training {spec.job}")
            return OpenAITrainer(api_key=key, api_base=access.api_base, poll_s=access.poll_s)
        case "databricks":
            token = from_env(access.api_key_env or "DATABRICKS_TOKEN", where=f"training {spec.job}")
            return DatabricksTrainer(host=access.api_base or "", token=token, poll_s=access.poll_s)
        case _:
            assert_never(spec.provider)
