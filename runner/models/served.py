"""What ``local/NAME`` stands for on this machine: weights, weights with an adapter trained on them, or a model tuned whole.

``ft-<job>`` is a training job of the ledger; ``tickets@latest`` an alias of one. All other names are those of `weights`.
An adapter and its base make a model of their own, with an identity and a server of its own: llama.cpp can change adapters from
request to request, but its prompt cache then mixes what one has computed into what another answers.
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
    """The files of a model: a GGUF file, and an adapter to it or None."""

    gguf: Path
    adapter: Path | None = None


class _Left(NamedTuple):
    """What a training has left: a file (or a folder, which llama.cpp cannot serve), its SHA-256, and whether it needs no base."""

    base: Base
    file: Path
    sha256: str
    whole: bool


def digest(name: str) -> str:
    """Which model this is, ``sha256:...``: the same for the same weights on every machine, and known before they are fetched.

    Raises:
        ConfigError: no such weights, no such job, or one that has no model.
        LaunchError: weights that are not pinned must be read for this, and cannot be had.
    """
    if (job := _job(name)) is None:
        return weights.digest(name)
    left = _left(job, name)
    if left.whole:
        return f"sha256:{left.sha256}"
    return f"sha256:{hashlib.sha256(f'{left.base.identity} {left.sha256}'.encode()).hexdigest()}"


def pull(name: str, *, progress: Progress | None = None) -> Served:
    """Have a model's files on this machine.

    Raises:
        ConfigError: as `digest`.
        LaunchError: they cannot be had, or are not what they were when the model was trained.
    """
    if (job := _job(name)) is None:
        return Served(weights.pull(name, progress=progress))
    base, file, sha256, whole = _left(job, name)
    if file.suffix != ".gguf":
        raise LaunchError(f"llama.cpp cannot serve {name}; what was trained is in {file}")
    if not file.is_file() or weights.sha256(file) != sha256:
        raise LaunchError(f"{file} is not what the training has made; train again: ostinato ft run --force")
    if whole:
        return Served(file)
    here = base.gguf or base.hf
    named = here if here is not None and Path(here).exists() else base.name
    gguf = weights.pull(named, progress=progress)
    if (found := weights.digest(named)) != base.identity:
        raise LaunchError(f"{name} was trained on {base.name} as {base.identity}, and {named} is {found} now")
    return Served(gguf, file)


def alias(name: str) -> str:
    """What a server should call the model. Raises ConfigError."""
    job = _job(name)
    return weights.alias(name) if job is None else f"ft-{job.name}"


def _job(name: str) -> Path | None:
    """The folder of the job that has trained the model of this name; None for weights. Raises ConfigError."""
    if aliases.is_reference(name):
        pinned, version = aliases.resolve(name)
        if version.model.get("kind") != "local":
            raise ConfigError(f"{pinned} is no model of this machine; a config asks it with model={name}")
        name = str(version.model["name"])
    found = _TUNED.fullmatch(name)
    return ledger.folder() / found["job"] if found else None


def _left(job: Path, name: str) -> _Left:
    """What the training in this folder has left. Raises ConfigError when there is no such job, or it has no model."""
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
    """The two files are read again when they have changed: every request asks which model it goes to."""
    job = ledger.JobFolder.open(path)
    result = job.result()
    if result is None or "sha256" not in result:
        return None
    adapter = result.get("adapter", "adapter.gguf")
    file = path / str(adapter or result.get("model") or "output")
    return _Left(job.spec.base, file, str(result["sha256"]), whole=adapter is None and file.suffix == ".gguf")


def _stamp(file: Path) -> _Stamp | None:
    """What tells a file from another in its place; None without one."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
