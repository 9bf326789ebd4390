"""Models named ``local/NAME``: weights, weights with an adapter that was trained on them, or a whole tuned model.

``ft-<job>`` names a training job of the ledger, ``tickets@latest`` an alias of one. `weights` knows all other names.
An adapter and its base are one model, with its own identity and server. llama.cpp can change adapters from
request to request, but its prompt cache then mixes one adapter's results into another's answers.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runner.errors import ConfigError, FinetuneError, LaunchError
from runner.finetune.jobs import ledger
from runner.models import aliases, weights

if TYPE_CHECKING:
    from runner.finetune.jobs.spec import Base
    from runner.models.fetch import Progress

_TUNED = re.compile(r"ft-(?P<job>[0-9a-f]{12})")

_Stamp = tuple[int, int, int]


class Served(NamedTuple):
    """The files of a model: a GGUF file, and its adapter, if any."""

    gguf: Path
    adapter: Path | None = None


class _Left(NamedTuple):
    """The product of a training: a file (or a folder, which llama.cpp cannot serve), its SHA-256, whether it needs no base."""

    base: Base
    file: Path
    sha256: str
    whole: bool


def digest(name: str) -> str:
    """Return the digest of a model, ``sha256:...``. It is the same on every machine, and known before the weights are fetched.

    Raises:
        ConfigError: no such weights, no such job, or the job has no model.
        LaunchError: the weights are not pinned, so they must be read, and cannot be fetched.
    """
    if (job := _job(name)) is None:
        return weights.digest(name)
    left = _left(job, name)
    if left.whole:
        return f"sha256:{left.sha256}"
    return f"sha256:{hashlib.sha256(f'{left.base.identity} {left.sha256}'.encode()).hexdigest()}"


def pull(name: str, *, progress: Progress | None = None) -> Served:
    """Fetch the files of a model if they are not on this machine.

    Raises:
        ConfigError: as `digest`.
        LaunchError: they cannot be fetched, or have changed since the model was trained.
    """
    if (job := _job(name)) is None:
        return Served(weights.pull(name, progress=progress))
    base, file, sha256, whole = _left(job, name)
    if file.suffix != ".gguf":
        raise LaunchError(f"llama.cpp cannot serve {name}; what was trained is in {file}")
    if not file.is_file() or weights.sha256(file) != sha256:
        raise LaunchError(f"{file} has changed since it was trained; train again: ostinato ft run --force")
    if whole:
        return Served(file)
    here = base.gguf or base.hf
    named = here if here is not None and Path(here).exists() else base.name
    gguf = weights.pull(named, progress=progress)
    if (found := weights.digest(named)) != base.identity:
        raise LaunchError(f"{name} was trained on {base.name} with {base.identity}, but {named} now has {found}")
    return Served(gguf, file)


def has_adapter(name: str) -> bool:
    """Return whether the model is a base with an adapter that was trained on it. Raises ConfigError."""
    job = _job(name)
    return job is not None and not _left(job, name).whole


def alias(name: str) -> str:
    """Return the name that a server gives the model. Raises ConfigError."""
    job = _job(name)
    return weights.alias(name) if job is None else f"ft-{job.name}"


def _job(name: str) -> Path | None:
    """Find the folder of the job that trained the model of this name; None for weights. Raises ConfigError."""
    if aliases.is_reference(name):
        pinned, version = aliases.resolve(name)
        if version.model.get("kind") != "local":
            raise ConfigError(f"{pinned} is not a model of this machine; use it in a config with model={name}")
        name = str(version.model["name"])
    found = _TUNED.fullmatch(name)
    return ledger.folder() / found["job"] if found else None


def _left(job: Path, name: str) -> _Left:
    """Find what the training in this folder produced. Raises ConfigError if there is no such job, or it has no model."""
    try:
        left = _read(job, _stamp(job / "spec.json"), _stamp(job / "result.json"))
        if left is None:
            status = ledger.JobFolder.open(job).state().status
            raise ConfigError(f"{name} has no model: the training is {status}; see `ostinato ft show {job.name}`")
    except FinetuneError as error:
        raise ConfigError(f"{name}: {error}") from None
    return left


@lru_cache(maxsize=64)
def _read(path: Path, _spec: _Stamp | None, _result: _Stamp | None) -> _Left | None:
    """Read a job; cached until one of its two files changes, since every request asks for its model."""
    job = ledger.JobFolder.open(path)
    result = job.result()
    if result is None or "sha256" not in result:
        return None
    adapter = result.get("adapter", "adapter.gguf")
    file = path / str(adapter or result.get("model") or "output")
    return _Left(job.spec.base, file, str(result["sha256"]), whole=adapter is None and file.suffix == ".gguf")


def _stamp(file: Path) -> _Stamp | None:
    """Return what distinguishes a file from its replacement; None if there is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
