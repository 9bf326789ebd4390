"""What is trained on this machine: weights by name, and their identity, which decides whether a training was made already."""

from __future__ import annotations

from runner.finetune.jobs.spec import Base
from runner.models import weights


def base_of(name: str, *, fetch: bool = True) -> Base:
    """The base model of this name: weights that `weights` knows.

    Args:
        name: as in ``local/NAME``.
        fetch: have the weights on this machine when this returns. A folder is there already, and is trained as it is.

    Raises:
        ConfigError: no such weights.
        LaunchError: they cannot be fetched.
    """
    if folder := weights.model_folder(name):
        return Base(name, weights.digest(name), hf=str(folder))
    found = weights.pull(name) if fetch else weights.find(name)
    return Base(name, weights.digest(name), gguf=str(found.absolute()) if found else None)
