"""What ``local/NAME`` stands for on this machine: weights, weights with an adapter trained on them, or a model tuned whole.

``ft-<job>`` is a training job of the ledger; ``tickets@latest`` an alias of one. All other names are those of `weights`.
An adapter and its base make a model of their own, with an identity and a server of its own: llama.cpp can change adapters from
request to request, but its prompt cache then mixes what one has computed into what another answers.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runner.errors import ConfigError, FinetuneError, LaunchError
from runner.finetune import aliases, ledger
from runner.providers import weights

if TYPE_CHECKING:
    from runner.finetune.ledger import JobFolder
    from runner.providers.fetch import Progress

_TUNED = re.compile(r"ft-(?P<job>[0-9a-f]{12})")


class Served(NamedTuple):
    """The files of a model: a GGUF file, and an adapter to it or None."""

    gguf: Path
    adapter: Path | None = None


class _Made(NamedTuple):
    """What a training has left: a file (or a folder, which llama.cpp cannot serve), its SHA-256, and whether it needs no base."""

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
    made = _made(job, name)
    if made.whole:
        return f"sha256:{made.sha256}"
    return f"sha256:{hashlib.sha256(f'{job.spec.base.identity} {made.sha256}'.encode()).hexdigest()}"


def pull(name: str, *, progress: Progress | None = None) -> Served:
    """Have a model's files on this machine.

    Raises:
        ConfigError: as `digest`.
        LaunchError: they cannot be had, or are not what they were when the model was trained.
    """
    if (job := _job(name)) is None:
        return Served(weights.pull(name, progress=progress))
    made = _made(job, name)
    if made.file.suffix != ".gguf":
        raise LaunchError(f"llama.cpp cannot serve {name}; what was trained is in {made.file}")
    if not made.file.is_file() or weights.digest(str(made.file)) != f"sha256:{made.sha256}":
        raise LaunchError(f"{made.file} is not what the training has made; train again: ostinato ft run --force")
    if made.whole:
        return Served(made.file)
    base = job.spec.base
    here = base.gguf or base.hf
    named = here if here is not None and Path(here).exists() else base.name
    gguf = weights.pull(named, progress=progress)
    if (found := weights.digest(named)) != base.identity:
        raise LaunchError(f"{name} was trained on {base.name} as {base.identity}, and {named} is {found} now")
    return Served(gguf, made.file)


def alias(name: str) -> str:
    """What a server should call the model. Raises ConfigError."""
    job = _job(name)
    return weights.alias(name) if job is None else f"ft-{job.spec.job}"


def _job(name: str) -> JobFolder | None:
    """The job that has trained the model of this name; None for weights. Raises ConfigError."""
    if aliases.is_reference(name):
        pinned, version = aliases.resolve(name)
        if version.model.get("kind") != "local":
            raise ConfigError(f"{pinned} is no model of this machine; a config asks it with model={name}")
        name = str(version.model["name"])
    return _checked(name) if _TUNED.fullmatch(name) else None


def _checked(name: str) -> JobFolder:
    found = _TUNED.fullmatch(name)
    assert found is not None
    try:
        return ledger.JobFolder.open(ledger.folder() / found["job"])
    except FinetuneError as error:
        raise ConfigError(f"{name}: {error}") from None


def _made(job: JobFolder, name: str) -> _Made:
    result = job.result()
    if result is None or "sha256" not in result:
        raise ConfigError(f"{name} has no model: the training is {job.state().status}; see `ostinato ft show {job.spec.job}`")
    adapter = result.get("adapter", "adapter.gguf")
    file = job.path / str(adapter or result.get("model") or "output")
    return _Made(file, str(result["sha256"]), whole=adapter is None and file.suffix == ".gguf")
