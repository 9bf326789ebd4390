"""Find config files: the folders that are searched, and the options of a group in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.config import yaml
from runner.errors import ConfigError
from runner.system.paths import expanded, shipped_conf

if TYPE_CHECKING:
    from collections.abc import Sequence


def folders(config_dir: str | None = None) -> list[Path]:
    """Return the folders that are searched for config groups, first match wins: `-cd`, then ``./conf``, then the shipped one.

    Raises:
        ConfigError: `config_dir` is not a folder.
    """
    places = []
    if config_dir is not None:
        given = expanded(config_dir).absolute()
        if not given.is_dir():
            raise ConfigError(f"-cd {config_dir}: there is no such folder")
        places.append(given)
    own = Path("conf").absolute()
    if own.is_dir():
        places.append(own)
    places.append(shipped_conf().absolute())
    unique: list[Path] = []
    for place in places:
        if all(place.resolve() != other.resolve() for other in unique):
            unique.append(place)
    return unique


def file_of(option: str, places: Sequence[Path]) -> Path | None:
    """Return the file of an option such as ``model/fake`` or of a primary config; None if no folder has it."""
    return next((file for place in places if (file := place / f"{option}.yaml").is_file()), None)


def options(group: str, places: Sequence[Path]) -> list[str]:
    """Return the options of a config group, sorted; an empty list if `group` is not a group."""
    return sorted({file.stem for place in places for file in (place / group).glob("*.yaml")})


def kind_of(file: Path) -> str | None:
    """Return the `kind` that an option writes out; None if it takes it from the option that it builds on, or has none.

    Raises:
        ConfigError: the file cannot be read.
    """
    kind = yaml.read(file).get("kind")
    return kind if isinstance(kind, str) else None


def kind_of_option(group: str, option: str, places: Sequence[Path]) -> str | None:
    """Return the `kind` of an option of a group: its own, or that of the last option it builds on; None if that is not told.

    Raises:
        ConfigError: a file cannot be read.
    """
    seen = set()
    while option not in seen and (file := file_of(f"{group}/{option}", places)):
        seen.add(option)
        content = yaml.read(file)
        if isinstance(kind := content.get("kind"), str):
            return kind
        built_on = content.get("defaults")
        names = [name for name in built_on if isinstance(name, str) and name != "_self_"] if isinstance(built_on, list) else []
        option = names[-1] if names else option
    return None


def state_of(file: Path) -> tuple[int, ...] | None:
    """Return what changes when a file does: its time of change, size and number. None if it is not there."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
