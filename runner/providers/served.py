"""What ``local/NAME`` stands for on this machine: weights, or weights with an adapter that was trained on them.

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


def digest(name: str) -> str:
    """Which model this is, ``sha256:...``: the same for the same weights on every machine, and known before they are fetched.

    Raises:
        ConfigError: no such weights, no such job, or one that has no model.
        LaunchError: weights that are not pinned must be read for this, and cannot be had.
    """
    if (job := _job(name)) is None:
        return weights.digest(name)
    return f"sha256:{hashlib.sha256(f'{job.spec.base.identity} {_adapter_digest(job, name)}'.encode()).hexdigest()}"


def pull(name: str, *, progress: Progress | None = None) -> Served:
    """Have a model's files on this machine.

    Raises:
        ConfigError: as `digest`.
        LaunchError: they cannot be had, or are not what they were when the adapter was trained.
    """
    if (job := _job(name)) is None:
        return Served(weights.pull(name, progress=progress))
    base, adapter = job.spec.base, job.path / "adapter.gguf"
    kept = (job.result() or {}).get("adapter", "adapter.gguf")
    if base.hf is not None or kept != "adapter.gguf":
        raise LaunchError(f"llama.cpp cannot serve {name}; what was trained is in {job.path / (kept or 'output')}")
    if hashlib.sha256(_content(adapter)).hexdigest() != _adapter_digest(job, name):
        raise LaunchError(f"{adapter} is not what the training has made; train again: ostinato ft run --force")
    named = base.gguf if base.gguf is not None and Path(base.gguf).is_file() else base.name
    gguf = weights.pull(named, progress=progress)
    if (found := weights.digest(named)) != base.identity:
        raise LaunchError(f"{name} was trained on {base.name} as {base.identity}, and {named} is {found} now")
    return Served(gguf, adapter)


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


def _adapter_digest(job: JobFolder, name: str) -> str:
    result = job.result()
    if result is None or "sha256" not in result:
        raise ConfigError(f"{name} has no model: the training is {job.state().status}; see `ostinato ft show {job.spec.job}`")
    return str(result["sha256"])


def _content(adapter: Path) -> bytes:
    try:
        return adapter.read_bytes()
    except OSError as error:
        raise LaunchError(f"{adapter}: {error.strerror}; train again: ostinato ft run --force") from None
