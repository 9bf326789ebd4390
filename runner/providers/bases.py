"""What is trained on this machine: weights by name, and their identity, which decides whether a training was made already."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from runner.errors import ConfigError
from runner.finetune.spec import Base
from runner.paths import expanded
from runner.providers import weights

if TYPE_CHECKING:
    from pathlib import Path


def base_of(name: str, *, fetch: bool = True) -> Base:
    """The base model of this name: weights that `weights` knows, or a folder in the form of Hugging Face.

    Args:
        name: as in ``local/NAME``; the folder of a model has a ``config.json``.
        fetch: have the weights on this machine when this returns.

    Raises:
        ConfigError: no such weights.
        LaunchError: they cannot be fetched.
    """
    folder = expanded(name)
    if (folder / "config.json").is_file():
        return Base(name, f"sha256:{_hashed(folder)}", hf=str(folder.absolute()))
    if folder.is_dir():
        raise ConfigError(f"{name}: is a folder, and holds no model: there is no config.json in it")
    found = weights.pull(name) if fetch else weights.find(name)
    return Base(name, weights.digest(name), gguf=str(found.absolute()) if found else None)


def _hashed(folder: Path) -> str:
    """SHA-256 over what decides a model's answers: the names and contents of its config, tokenizer and weights."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors", ".model", ".txt", ".jinja"}):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
