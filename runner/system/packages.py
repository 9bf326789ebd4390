"""The packages that are installed: their versions and what they declare, from the names of their folders.

`importlib.metadata` reads and parses a file of each package for either, which takes a small run a twentieth of its time.
"""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_FACTS = re.compile(r"(?P<name>.+?)-(?P<version>\d.*)\.dist-info")
"""A folder of facts, as packaging.python.org/specifications/recording-installed-packages names it."""


def version(name: str) -> str | None:
    """Return the version of an installed package; None if there is none of this name."""
    for folder in _folders():
        found = _FACTS.fullmatch(folder.name)
        if found and _normal(found["name"]) == _normal(name):
            return found["version"]
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as elsewhere

    try:
        return elsewhere(name)
    except PackageNotFoundError:
        return None


def entry_points(group: str) -> dict[str, EntryPoint]:
    """Return what other packages declare in a group, by name. The first one on the path is the one that is imported."""
    found: dict[str, EntryPoint] = {}
    for folder in _folders():
        file = folder / "entry_points.txt"
        if (
            not folder.name.startswith("ostinato-")
            and file.is_file()
            and f"[{group}]" in file.read_text("utf-8", errors="replace")
        ):
            from importlib.metadata import Distribution

            for entry in Distribution.at(folder).entry_points.select(group=group):
                found.setdefault(entry.name, entry)
    return found


def _folders() -> list[Path]:
    """Return the folders of facts, in the order of the path."""
    return [folder for place in sys.path for folder in _within(place, _state(place))]


@functools.lru_cache(maxsize=64)
def _within(place: str, state: int | None) -> list[Path]:
    if state is None:
        return []
    return [path for path in sorted(Path(place or ".").iterdir()) if path.name.endswith((".dist-info", ".egg-info"))]


def _state(place: str) -> int | None:
    """Return what changes when something is installed in a folder of the path; None if it is not a folder."""
    path = Path(place or ".")
    return path.stat().st_mtime_ns if path.is_dir() else None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
