"""Paths of what Ostinato keeps on this machine. Only `private` makes a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CONF = "conf:"


def home() -> Path:
    """Return the folder that holds the cache, weights, kept servers and ledgers.

    `OSTINATO_HOME` when set, else ``ostinato`` in the user's cache directory (XDG on Linux, ``~/Library/Caches`` on macOS).
    """
    if explicit := os.environ.get("OSTINATO_HOME"):
        return expanded(explicit).absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return expanded(xdg).absolute() / "ostinato"
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path.home() / caches / "ostinato"


def expanded(path: str) -> Path:
    """Replace ``~`` by a home directory. The ``~name`` of an unknown user stays as it is, and is then not found."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def shortened(path: Path) -> str:
    """Return the path as messages show it: relative to the working directory where it lies in there."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def in_conf(path: str) -> str:
    """Replace ``conf:`` at the beginning by the folder of configs: ``./conf``, else the shipped one."""
    if not path.startswith(_CONF):
        return path
    name = path.removeprefix(_CONF)
    own = Path("conf").absolute() / name
    return str(own if own.is_file() else shipped_conf() / name)


def private(folder: Path) -> Path:
    """Make `folder`, readable by this user only, and return it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def shipped_conf() -> Path:
    """Return the folder of shipped YAML: ``runner/conf`` in a wheel, ``conf/`` beside ``runner/`` in a source tree."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
