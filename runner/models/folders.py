"""Models in a folder of Hugging Face's form: which weights they hold, and the GGUF file of these that llama.cpp serves."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from runner.errors import FinetuneError, LaunchError
from runner.system.paths import expanded

if TYPE_CHECKING:
    from pathlib import Path

_DECISIVE = {".json", ".safetensors", ".model", ".txt", ".jinja"}


def found(name: str) -> Path | None:
    """The folder of this name that holds a model: there is a ``config.json`` in it."""
    folder = expanded(name).absolute()
    return folder if (folder / "config.json").is_file() else None


def sha256(folder: Path) -> str:
    """SHA-256, in hex, over what decides a model's answers: the names and contents of its config, tokenizer and weights.

    Read once a process, for as long as no file changes its size or its time of change.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in _DECISIVE)
    stats = [(path, path.stat()) for path in files]
    return _hashed(tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats))


def write_gguf(folder: Path, file: Path) -> None:
    """Write the folder's model as a GGUF file, whole or not at all.

    Raises:
        LaunchError: llama.cpp would not answer as this model does (see `Folder`), or what writes such files is not installed.
        OSError: the file cannot be written.
    """
    from runner.finetune.trainers.local.folder import Folder  # every run imports this module, and few have a folder
    from runner.finetune.trainers.local.write import kept, write

    try:
        source = Folder(folder)
        write(file, source.fields, source.kinds, kept(source))
    except FinetuneError as error:
        raise LaunchError(str(error)) from None
    except ModuleNotFoundError as error:
        raise LaunchError(
            f"{folder} is served from a GGUF file, and {error.name}, which writes it, is not installed: "
            "pip install 'ostinato[finetune]'"
        ) from None


@lru_cache(maxsize=16)
def _hashed(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
