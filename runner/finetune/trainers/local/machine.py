"""Choose device, arithmetic and threads: from the settings, else for the machine as it is now."""

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
"""Load average below which the machine counts as idle. Beside one busy process, two threads that spin for each other take four
times as long per step as on an idle machine; one thread takes half as long again as two on an idle machine."""

_BF16 = ("avx512_bf16", "amx_bf16")


class Machine(NamedTuple):
    """The hardware: `device` by torch's name, `dtype` (``bf16`` or ``fp32``), and `threads` of the CPU."""

    device: str
    dtype: str
    threads: int

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Compute matrix products in `dtype` within this context. Weights stay float32: bf16 ones are slower on CPUs."""
        import torch

        return torch.autocast(self.device, torch.bfloat16) if self.dtype == "bf16" else nullcontext()


def chosen(hyper: LocalHyper, *, threads: int | None = None) -> Machine:
    """Choose the hardware by the settings and the machine.

    Args:
        hyper: the settings.
        threads: the number that an earlier process of this training used; it changes the last bits of every sum.

    Raises:
        FinetuneError: the settings ask for a missing device.
    """
    import torch

    if hyper.device == "cuda" and not torch.cuda.is_available():
        raise FinetuneError("finetune.device=cuda: torch finds no GPU; use auto or cpu")
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
