"""Keep compositions on this machine: a command that is given again starts without Hydra, which takes a third of a second.

What is kept is what the YAML says, before its interpolations are resolved, and only if it is a valid config, which holds no
secret. It is used as long as nothing has changed that it depends on: the overrides, every file of the config groups, the code
that composes, and for files of the user's own the current folder and the environment. Nothing needs these files; they may be
deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import msgspec

from runner.config.folders import state_of
from runner.secrets import redact
from runner.system import files
from runner.system.paths import home, private

MOST = 200
"""Compositions that are kept; before there are more, the older half is deleted."""


class Kept(msgspec.Struct, frozen=True):
    """The part of a `Composition` that Hydra makes of one command."""

    raw: dict[str, Any]
    choices: dict[str, str]
    hydra: dict[str, str]
    params: dict[str, str]


def key_of(*parts: object) -> str:
    """Return the name of a composition that depends on `parts`, whose `repr` tells them apart, and on the code that composes."""
    code = sorted(Path(__file__).parent.glob("*.py"))
    libraries = [Path(spec.origin) for name in ("hydra", "omegaconf") if (spec := importlib.util.find_spec(name)) and spec.origin]
    told = repr((sys.version, [(str(file), state_of(file)) for file in (*code, *libraries)], parts))
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def find(key: str) -> Kept | None:
    """Return the composition of this name; None if there is none, or it cannot be read."""
    try:
        return msgspec.json.decode(_file(key).read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return None


def keep(key: str, made: Kept) -> None:
    """Keep a composition, unless JSON cannot hold it or it may hold a secret. A folder that cannot be written is no error."""
    try:
        content = msgspec.json.format(msgspec.json.encode(made))
        if msgspec.json.decode(content, type=Kept) != made or redact(content.decode()).encode() != content:
            return
    except (TypeError, ValueError):
        return
    file = _file(key)
    with contextlib.suppress(OSError):
        private(file.parent)
        _make_room(file.parent)
        files.write_private(file, content)


def _file(key: str) -> Path:
    return home() / "compositions" / f"{key}.json"


def _make_room(folder: Path) -> None:
    there = list(folder.glob("*.json"))
    if len(there) < MOST:
        return
    for file in sorted(there, key=lambda file: state_of(file) or ())[: len(there) // 2]:
        file.unlink(missing_ok=True)
