"""Choose what llama.cpp uses of this machine: threads by the cores, slots by cores and memory, batches by the window."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from runner.errors import FinetuneError

MAX_THREADS = 8

SLOTS_PER_THREAD = 2
"""Answers that are made together read the weights once. On two cores, the embedded model says 96 tokens/s to one client, 141 to
four and 158 to eight, each of which then waits longer (xllamacpp 2026.10, answers of 40 tokens)."""

MEMORY_SHARE = 0.5
"""The share of the free memory that the windows of all slots may take together, beside the weights."""

BATCH = 512
"""The most prompt tokens that are evaluated in one step: llama.cpp's own default. More take memory and save no time on a CPU."""

_BYTES = 2
"""Bytes of a number in the window of a slot: llama.cpp keeps keys and values in 16 bits."""


def threads() -> int:
    """Count the physical cores of this process, at most `MAX_THREADS`. The client needs little beside them.

    On two cores, the embedded model says 27.7 tokens/s with two threads and 16.9 with one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # hyper-threads of a core share its arithmetic unit
        if Path("/sys/devices/system/cpu/smt/active").read_text(encoding="ascii").strip() == "1":
            cores //= 2
    with contextlib.suppress(OSError, ValueError):  # a container's share of the CPU time: "max 100000" or "150000 100000"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, round(int(quota) / int(period)))
    return max(1, min(cores, MAX_THREADS))


def slots(threads: int, *, concurrency: int | None = None, window: int | None = None, free: int | None = None) -> int:
    """Return how many requests are answered at once: 1 or more.

    Args:
        threads: those of the server.
        concurrency: requests that are asked for at once; more slots would stay empty. None: unknown.
        window: bytes of one slot's window. None: unknown, so that memory sets no bound.
        free: bytes of free memory; None: unknown.
    """
    bounds = [threads * SLOTS_PER_THREAD]
    if concurrency is not None:
        bounds.append(concurrency)
    if window and free is not None:
        bounds.append(int(free * MEMORY_SHARE) // window)
    return max(1, min(bounds))


def window_bytes(gguf: Path, context: int) -> int | None:
    """Return the bytes of one slot's window of `context` tokens: keys and values of all layers. None: the file does not say."""
    from runner.finetune.trainers.local.gguf import GGUF

    try:
        fields: dict[str, Any] = GGUF(gguf).fields
        kind = fields["general.architecture"]
        heads = fields[f"{kind}.attention.head_count"]
        width = fields.get(f"{kind}.attention.key_length", fields[f"{kind}.embedding_length"] // heads)
        numbers = fields[f"{kind}.block_count"] * fields.get(f"{kind}.attention.head_count_kv", heads) * width
        return 2 * int(numbers) * _BYTES * context
    except (FinetuneError, KeyError, TypeError, ZeroDivisionError):
        return None


def free_memory() -> int | None:
    """Return the bytes of memory that a new process may take, in its container too. None: the system does not say."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        found.append(int(told["MemAvailable"].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # "max" without a bound
        bound = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        found.append(bound - int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii")))
    return max(0, min(found)) if found else None


def batch(context: int) -> int:
    """Return how many prompt tokens are evaluated in one step: no more than a window holds."""
    return min(BATCH, context)
