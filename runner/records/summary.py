"""What a record says about a run as a whole: its summary, and the machine, packages and code it ran with."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runner.types import Score, Spent, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

RunStatus = Literal["running", "complete", "incomplete", "failed", "interrupted"]

PACKAGES = ("ostinato", "hydra-core", "omegaconf", "litellm", "diskcache", "prefect", "msgspec", "aiohttp", "jinja2", "xllamacpp")


class Summary(msgspec.Struct, kw_only=True):
    """The numbers of a run. Counts are of samples (rows × repeats); unknown is None, never zero.

    Attributes:
        rows: samples the run consists of; `ok` + `errors` + `refused` + `truncated` + `invalid` + `owed` of them.
        usage: tokens of requests made; `usage_cached` those of answers that came from the cache.
        unrecorded: the part of `requests`, `usage` and `cost_usd` that was spent on samples which have no line in the record:
            their conversations were cut off between two turns, or what they met would have met every row.
        cost_usd: what the requests cost; None when a price is unknown. `saved_usd`: what the cache's answers had cost.
        wall_s: seconds from start to end, over all sittings of the run.
        model_s: seconds in which requests were in flight; `tokens_per_s` is completion tokens over these.
    """

    run: str
    name: str
    model: str
    status: RunStatus
    rows: int = 0
    ok: int = 0
    errors: int = 0
    refused: int = 0
    truncated: int = 0
    invalid: int = 0
    owed: int = 0
    cache_hits: int = 0
    requests: int = 0
    scores: dict[str, Score] = {}
    usage: Usage = Usage()
    usage_cached: Usage = Usage()
    cost_usd: float | None = None
    saved_usd: float | None = None
    wall_s: float = 0.0
    model_s: float = 0.0
    tokens_per_s: float | None = None
    errors_by_code: dict[str, int] = {}
    unrecorded: Spent = Spent()
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, every field present, every kind of token counted."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for name in ("usage", "usage_cached"):
            plain[name] = {field: getattr(getattr(self, name), field) for field in Usage.__struct_fields__}
        return plain

    def table(self) -> list[dict[str, Any]]:
        """Two columns, measure and value, for people: what the terminal and Prefect's artifact show."""
        lines: list[tuple[str, str]] = [("model", self.model), ("rows", f"{self.rows:,}"), ("ok", f"{self.ok:,}")]
        lines.append(("errors", f"{self.errors:,}{_listed(self.errors_by_code)}"))
        lines += [(name, f"{count:,}") for name in ("refused", "truncated", "invalid", "owed") if (count := getattr(self, name))]
        for name, score in self.scores.items():
            lines.append((f"score {name}", _score(score)))
        share = f" ({self.cache_hits / self.rows:.0%})" if self.rows else ""
        lines.append(("cache hits", f"{self.cache_hits:,}{share}"))
        lines.append(("requests", f"{self.requests:,}"))
        tokens = f"{self.usage.prompt_tokens:,} in, {self.usage.completion_tokens:,} out"
        lines.append(("tokens", tokens if self.requests else "none sent"))
        if self.tokens_per_s is not None:
            lines.append(("tokens/s", f"{self.tokens_per_s:,.0f}"))
        lines.append(("cost", self._cost()))
        lines.append(("time", f"{self.wall_s:.1f} s"))
        return [{"measure": measure, "value": value} for measure, value in lines]

    def _cost(self) -> str:
        if self.model.startswith(("local/", "fake/")):
            return "none (this machine)"
        saved = f" ({_dollars(self.saved_usd)} saved by the cache)" if self.saved_usd else ""
        return ("unknown (no price for this model)" if self.cost_usd is None else _dollars(self.cost_usd)) + saved


def _score(score: Score) -> str:
    if score.mean is None:
        return "none (no sample could be scored)"
    error = f" ± {score.stderr:.3f}" if score.stderr is not None else ""
    return f"{score.mean:.3f}{error} (n={score.n:,})"


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


def _listed(codes: dict[str, int]) -> str:
    return f" ({', '.join(f'{code} {count}' for code, count in sorted(codes.items()))})" if codes else ""


def environment(folder: Path | None = None) -> dict[str, Any]:
    """The machine and the code: Python, OS, processors, memory, package versions, git commit and whether the tree is changed.

    Args:
        folder: whose git repository is meant; None: the working directory.
    """
    return {
        "python": platform.python_version(),
        "os": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": _cpus(),
        "gpus": _gpus(),
        "memory_gb": _memory_gb(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "git": _git(folder),
    }


@functools.cache  # of one process they do not change, and a sweep asks for them in every cell
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpus() -> int | None:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()


def _cpu() -> str | None:
    """The processor's model, as its maker calls it."""
    if sys.platform == "darwin":
        return (_run(["sysctl", "-n", "machdep.cpu.brand_string"]) or "").strip() or None
    return _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or None


def _gpus() -> list[str]:
    """NVIDIA's GPUs, as their driver names them."""
    found = (_field(file, "Model") for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")))
    return [name for name in found if name]


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (OSError, ValueError):
        return None


def _field(file: Path, name: str) -> str | None:
    """The first value of `name` in a file of lines ``name : value``."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)


def _git(folder: Path | None) -> dict[str, Any] | None:
    """Commit, dirty flag, and the digest of what is changed in tracked files; None outside a repository."""
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
