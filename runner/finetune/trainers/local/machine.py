"""What to compute with: device, arithmetic, threads. Chosen for the machine as it is, unless the settings say."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.errors import FinetuneError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from runner.finetune.jobs.hyper import LocalHyper

_IDLE = 0.5
"""Load average below which the machine counts as ours. With one busy neighbour, two threads that spin for each other take four
times as long a step as when they are alone, and one thread takes half as long again as two that are alone."""

_BF16 = ("avx512_bf16", "amx_bf16")


class Machine(NamedTuple):
    """`device` is torch's name, `dtype` is ``bf16`` or ``fp32``, `threads` are those of the CPU."""

    device: str
    dtype: str
    threads: int

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Within this, matrix products are done in `dtype`. Weights stay float32: storing them in bf16 is slower on CPUs."""
        import torch

        return torch.autocast(self.device, torch.bfloat16) if self.dtype == "bf16" else nullcontext()


def chosen(hyper: LocalHyper, *, threads: int | None = None) -> Machine:
    """What the settings and the machine come to.

    Args:
        hyper: the settings.
        threads: what an earlier sitting of the same training had; the number changes the last bits of every sum.

    Raises:
        FinetuneError: the settings ask for a device that is not there.
    """
    import torch

    if hyper.device == "cuda" and not torch.cuda.is_available():
        raise FinetuneError("finetune.device=cuda: there is no GPU that torch can use; take auto or cpu")
    device = "cuda" if hyper.device != "cpu" and torch.cuda.is_available() else "cpu"
    dtype = hyper.dtype
    if dtype == "auto":
        fast = torch.cuda.is_bf16_supported() if device == "cuda" else _computes_in_bf16()
        dtype = "bf16" if fast else "fp32"
    return Machine(device, dtype, threads or hyper.threads or _threads())


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = 1.0
    return cores if load < _IDLE else max(1, cores // 2)


def _computes_in_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
    return any(flag in flags for flag in _BF16)
