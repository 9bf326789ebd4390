"""Models in Hugging Face folders: the digest of their weights, and the GGUF file that llama.cpp serves."""

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
    """Return the folder of this name if it holds a model, that is, a ``config.json``; else None."""
    folder = expanded(name).absolute()
    return folder if (folder / "config.json").is_file() else None


def sha256(folder: Path) -> str:
    """Hash what decides a model's answers: the names and contents of its config, tokenizer and weights. SHA-256, in hex.

    The files are read once per process, as long as none changes its size or modification time.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in _DECISIVE)
    stats = [(path, path.stat()) for path in files]
    return _hashed(tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats))


def write_gguf(folder: Path, file: Path) -> None:
    """Write the model of a folder as a GGUF file, whole or not at all.

    Raises:
        LaunchError: llama.cpp would not answer as this model does (see `Folder`), or a package that is needed is not installed.
        OSError: the file cannot be written.
    """
    from runner.finetune.trainers.local.folder import Folder  # every run imports this module, but few have a folder
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
