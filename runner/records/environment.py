"""The machine, the packages and the code that a run was made with."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.system.packages import version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PACKAGES = (
    "ostinato",
    "hydra-core",
    "omegaconf",
    "litellm",
    "diskcache",
    "prefect",
    "msgspec",
    "httptools",
    "aiohttp",
    "jinja2",
    "xllamacpp",
)


def environment(folder: Path | None = None, also: Iterable[str] = ()) -> dict[str, Any]:
    """Describe the machine and the code: Python, OS, processors, memory, package versions, git commit, uncommitted changes.

    Args:
        folder: a folder of the git repository; None: the working directory.
        also: further packages whose versions matter.
    """
    return {
        "python": platform.python_version(),
        "os": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": _cpus(),
        "gpus": _gpus(),
        "memory_gb": _memory_gb(),
        "packages": {name: found for name in (*PACKAGES, *also) if (found := _version(name))},
        "git": git_of(folder),
    }


@functools.cache  # fixed for the life of a process
def _version(name: str) -> str | None:
    return version(name)


def _cpus() -> int | None:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()


def _cpu() -> str | None:
    """Return the processor's model name."""
    if sys.platform == "darwin":
        return (_run(["sysctl", "-n", "machdep.cpu.brand_string"]) or "").strip() or None
    return _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or None


def _gpus() -> list[str]:
    """Return the NVIDIA GPUs, as their driver names them."""
    found = (_field(file, "Model") for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")))
    return [name for name in found if name]


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (OSError, ValueError):
        return None


def _field(file: Path, name: str) -> str | None:
    """Return the first value of `name` in a file of lines ``name : value``."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)


def git_of(folder: Path | None) -> dict[str, Any] | None:
    """Return what the repository of a folder is at; None outside a repository.

    Args:
        folder: where; None: the working directory.

    Returns:
        ``commit``, ``dirty``, and ``diff_sha256``, the digest of changes to tracked files, if there are any.
    """
    commit = _run(["git", "rev-parse", "HEAD"], folder)
    if commit is None:
        return None
    facts = {"commit": commit.strip(), "dirty": bool((_run(["git", "status", "--porcelain"], folder) or "").strip())}
    changed = _run(["git", "diff", "HEAD"], folder) if facts["dirty"] else None
    return {**facts, "diff_sha256": hashlib.sha256(changed.encode()).hexdigest()} if changed else facts


def _run(command: Sequence[str], folder: Path | None = None) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False, cwd=folder)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
