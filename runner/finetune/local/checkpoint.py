"""Checkpoints: all that a training needs to go on exactly as if it had not been stopped. Whole or not there, never pickle."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    import torch

FORMAT = 1
_KEPT = 2
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
    """

    step: int
    tokens: int
    wall_s: float
    threads: int
    best: float | None = None
    worse: int = 0
    loss: float | None = None
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
    (draft / "position.json").write_bytes(msgspec.json.format(msgspec.json.encode(position), indent=2))
    for file in draft.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    draft.replace(target)
    for old in whole(folder)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> tuple[Position, dict[str, dict[str, Any]]] | None:
    """The newest checkpoint and its tensors, as `save` was given them; None without one that can be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for place in reversed(whole(folder)):
        try:
            position = msgspec.json.decode((place / "position.json").read_bytes(), type=Position)
            tensors = {file.stem: load_file(file) for file in sorted(place.glob("*.safetensors"))}
        except (OSError, msgspec.MsgspecError, SafetensorError):
            continue
        if position.format <= FORMAT:
            return position, tensors
    return None


def whole(folder: Path) -> list[Path]:
    """The checkpoints there are, oldest first."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))
