"""Base models for training on this machine: weights by name, with the identity that a job's id is made of."""

from __future__ import annotations

from runner.finetune.jobs.spec import Base
from runner.models import weights


def base_of(name: str, *, fetch: bool = True) -> Base:
    """Find the base model of this name among the weights that `weights` knows.

    Args:
        name: as in ``local/NAME``.
        fetch: fetch the weights if they are not on this machine. A folder is trained where it is.

    Raises:
        ConfigError: no such weights.
        LaunchError: they cannot be fetched.
    """
    if folder := weights.model_folder(name):
        return Base(name, weights.digest(name), hf=str(folder))
    found = weights.pull(name) if fetch else weights.find(name)
    return Base(name, weights.digest(name), gguf=str(found.absolute()) if found else None)
