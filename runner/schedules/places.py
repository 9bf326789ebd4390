"""Find the folder of a schedule on this machine. A deployment names it by an id that says nothing elsewhere."""

from __future__ import annotations

import uuid
from pathlib import Path

from runner.system import files
from runner.system.paths import home, private


def id_of(folder: Path) -> str:
    """Return the id of a folder of this machine; it is made when it is first asked for. Raises OSError."""
    known = private(_known())
    found = sorted(file.name for file in known.iterdir() if not file.name.startswith(".") and file.read_text() == str(folder))
    if found:
        return found[0]
    made = uuid.uuid4().hex
    files.write(known / made, str(folder))
    return made


def folder_of(origin: str) -> Path | None:
    """Return the folder of an id; None if it is one of another machine, or is gone."""
    try:
        folder = Path((_known() / Path(origin).name).read_text())
    except OSError:
        return None
    return folder if folder.is_dir() else None


def elsewhere(name: str) -> Path:
    """Return where a machine that did not apply a schedule keeps its runs."""
    return home() / "schedules" / "played" / name


def _known() -> Path:
    return home() / "schedules" / "folders"
