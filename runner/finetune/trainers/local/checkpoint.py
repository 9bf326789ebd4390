"""Checkpoints: everything a training needs to resume exactly as if it had not been stopped. Complete or absent, never pickle."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import msgspec

from runner.finetune.jobs.ledger import SEAL, whole_checkpoints
from runner.system import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

FORMAT = 1
KEPT = 2
"""Checkpoints that are kept: the newest and a fallback."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """The position of a training.

    Attributes:
        step: optimiser steps done.
        tokens: tokens learned so far.
        wall_s: seconds of training so far, in all processes.
        threads: CPU threads; sums depend on their number.
        best: the lowest validation loss so far, or None.
        worse: validations since then.
        loss: the loss of the last step.
        looked: the step of the last validation.
    """

    step: int
    tokens: int
    wall_s: float
    threads: int
    best: float | None = None
    worse: int = 0
    loss: float | None = None
    looked: int = 0
    format: int = FORMAT


def save(folder: Path, position: Position, tensors: dict[str, dict[str, torch.Tensor]]) -> None:
    """Write ``step-N`` under a temporary name, flush it to disk, rename it, and delete all but the last two.

    Args:
        folder: the folder ``checkpoints``.
        position: the position of the training.
        tensors: the tensors by file: ``weights``, ``optimiser``, ``best``, ``random``.
    """
    from safetensors.torch import save_file

    target = folder / f"step-{position.step}"
    if target.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".new-{position.step}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    for name, group in tensors.items():
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in group.items()}, draft / f"{name}.safetensors")
    seal(draft, position)
    draft.replace(target)
    for old in whole_checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def seal(place: Path, position: Position) -> None:
    """Flush the files of a checkpoint to disk, then write its position, the last file, which makes it complete."""
    for file in place.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    files.write_private(place / SEAL, msgspec.json.format(msgspec.json.encode(position), indent=2))


def newest(folder: Path) -> tuple[Position, dict[str, dict[str, Any]]] | None:
    """Read the newest checkpoint: its position and tensors as `save` got them; None if no checkpoint can be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for place, position in sealed(folder):
        try:
            return position, {file.stem: load_file(file) for file in sorted(place.glob("*.safetensors"))}
        except (OSError, SafetensorError):
            continue
    return None


def sealed(folder: Path) -> Iterator[tuple[Path, Position]]:
    """Yield the complete checkpoints, newest first, with their positions."""
    for place in reversed(whole_checkpoints(folder)):
        try:
            position = msgspec.json.decode((place / SEAL).read_bytes(), type=Position)
        except (OSError, msgspec.MsgspecError):
            continue
        if position.format <= FORMAT:
            yield place, position
