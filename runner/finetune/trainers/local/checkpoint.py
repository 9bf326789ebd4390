"""Checkpoints: all that a training needs to go on exactly as if it had not been stopped. Whole or not there, never pickle."""

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
"""Checkpoints that are kept: the newest, and one to fall back on."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where a training is.

    Attributes:
        step: optimiser steps done.
        tokens: tokens learned from so far.
        wall_s: seconds of training so far, over all sittings.
        threads: CPU threads; the sums depend on it.
        best: the lowest validation loss so far, or None.
        worse: looks since then.
        loss: of the last step.
        looked: the step of the last look.
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
    """Write ``step-N`` under a temporary name, have it on the disk, rename it, and delete what is older than the last two.

    Args:
        folder: ``checkpoints``.
        position: where the training is.
        tensors: by file: ``weights``, ``optimiser``, ``best``, ``random``.
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
    """Have the files of a checkpoint on the disk, and then, as the last of them, where the training is: it is whole now."""
    for file in place.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    files.write_private(place / SEAL, msgspec.json.format(msgspec.json.encode(position), indent=2))


def newest(folder: Path) -> tuple[Position, dict[str, dict[str, Any]]] | None:
    """The newest checkpoint and its tensors, as `save` was given them; None without one that can be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for place, position in sealed(folder):
        try:
            return position, {file.stem: load_file(file) for file in sorted(place.glob("*.safetensors"))}
        except (OSError, SafetensorError):
            continue
    return None


def sealed(folder: Path) -> Iterator[tuple[Path, Position]]:
    """The whole checkpoints, the newest first, and where each of them is."""
    for place in reversed(whole_checkpoints(folder)):
        try:
            position = msgspec.json.decode((place / SEAL).read_bytes(), type=Position)
        except (OSError, msgspec.MsgspecError):
            continue
        if position.format <= FORMAT:
            yield place, position
