"""Aliases of models: ``tickets@latest`` and ``tickets@3`` name a model that a pipeline found good enough, with its lineage.

Each alias is one readable file, ``aliases/<name>.json`` in `OSTINATO_HOME`. Versions never change: moving an alias adds one, so
``tickets@3`` is always the same model, and ``tickets@latest`` the one that was registered last.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ConfigError, FinetuneError
from runner.system import files, paths
from runner.wording.suggest import closest

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
LATEST = "latest"

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_REFERENCE = re.compile(rf"(?P<name>{_NAME})@(?P<version>latest|[1-9]\d{{0,8}})")


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One model that an alias has named.

    Attributes:
        version: its number, counted from 1.
        model: the config group `model` that names it; plain data, no secrets.
        registered_at: when it was registered, UTC, ISO 8601.
        lineage: what it was trained from and how it was evaluated; plain data.
    """

    version: int
    model: dict[str, Any]
    registered_at: str
    lineage: dict[str, Any] = {}


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A name, and every model it has named, newest last."""

    name: str
    versions: list[Version]
    format: int = FORMAT

    @property
    def latest(self) -> Version:
        """The model that ``NAME@latest`` means."""
        return self.versions[-1]


def is_reference(text: str) -> bool:
    """Return whether `text` has the form ``NAME@latest`` or ``NAME@3``."""
    return _REFERENCE.fullmatch(text) is not None


def resolve(reference: str) -> tuple[str, Version]:
    """Find the model that a reference names now.

    Returns:
        The reference with the version's number (``tickets@3``), and the version.

    Raises:
        ConfigError: `reference` does not have that form, or there is no such alias or version.
    """
    if not (match := _REFERENCE.fullmatch(reference)):
        raise ConfigError(f"'{reference}' is not an alias of a model; aliases are written NAME@latest or NAME@3")
    name, wanted = match["name"], match["version"]
    alias = find(name)
    if alias is None:
        known = [one.name for one in listed()]
        near = closest(name, known)
        hint = f"; did you mean '{near}@{wanted}'?" if near else f"; there is {', '.join(known) or 'none yet'}"
        raise ConfigError(f"{reference}: no model is registered as '{name}'{hint}; `ostinato pipeline` registers what it trains")
    if wanted == LATEST:
        return f"{name}@{alias.latest.version}", alias.latest
    for version in alias.versions:
        if version.version == int(wanted):
            return reference, version
    raise ConfigError(f"{reference}: {name} has the versions {', '.join(str(one.version) for one in alias.versions)}")


def find(name: str) -> Alias | None:
    """Read the alias of this name; None if there is none.

    Raises:
        ConfigError: its file is broken or has a newer format.
    """
    file = _file(name)
    try:
        alias = msgspec.json.decode(file.read_bytes(), type=Alias)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{file} cannot be read: {error}; delete it to start the alias again") from None
    if alias.format > FORMAT or not alias.versions:
        raise ConfigError(f"{file}: this version of ostinato cannot read it (format up to {FORMAT}, one version or more)")
    return alias


def listed() -> list[Alias]:
    """Return all aliases, by name. Raises ConfigError when one is broken."""
    names = sorted(file.stem for file in folder().glob("*.json"))
    return [alias for name in names if (alias := find(name))]


def register(name: str, model: dict[str, Any], lineage: dict[str, Any]) -> Version:
    """Make ``name@latest`` name `model` from now on. Registering the same model again changes nothing.

    Raises:
        ConfigError: the name is not valid.
        FinetuneError: the file cannot be written.
    """
    if not re.fullmatch(_NAME, name):
        raise ConfigError(f"'{name}' cannot be an alias: use letters, digits, '.', '_' and '-', at most 64 characters")
    try:
        paths.private(folder())
        with files.locked(_lock_of(name)):
            before = find(name)
            versions = before.versions if before else []
            if versions and versions[-1].model == model:
                return versions[-1]
            new = Version(
                version=versions[-1].version + 1 if versions else 1,
                model=model,
                registered_at=datetime.now(UTC).isoformat(timespec="seconds"),
                lineage=lineage,
            )
            told = msgspec.json.encode(Alias(name=name, versions=[*versions, new]))
            files.write_private(_file(name), msgspec.json.format(told, indent=2) + b"\n")
            return new
    except OSError as error:
        raise FinetuneError(f"the alias {name} cannot be written in {folder()}: {error.strerror}") from error


def remove(name: str) -> bool:
    """Delete an alias and all its versions, but no models. Return whether it existed."""
    file = _file(name)
    if file.parent != folder() or not file.is_file():
        return False
    with files.locked(_lock_of(name)):
        file.unlink(missing_ok=True)
    return True


def folder() -> Path:
    """Return the folder of the aliases: ``aliases`` in `OSTINATO_HOME`."""
    return paths.home() / "aliases"


def _file(name: str) -> Path:
    return folder() / f"{name}.json"


def _lock_of(name: str) -> Path:
    """Return the file to lock while this alias is changed."""
    return folder() / f".{name}.lock"
