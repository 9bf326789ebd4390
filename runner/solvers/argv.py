"""The words of a user's command: which of them are files of the user's program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.system.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def is_path(program: str) -> bool:
    """Return whether a program is named by its path, and not looked up in PATH."""
    return "/" in program


def files_in(argv: Sequence[str], folder: Path) -> list[int]:
    """Return which parts of a command are files of the user's program: those that are, seen from `folder`, the paths of files.

    The first part, if it is a name, or lies in a folder called ``bin`` (``/usr/bin/python3``, ``.venv/bin/python``), is a tool of
    this machine.
    """
    first = expanded(argv[0])
    start = 0 if is_path(argv[0]) and first.parent.name != "bin" else 1
    return [number for number, part in enumerate(argv) if number >= start and (folder / expanded(part)).is_file()]
