"""Adapters in two formats: PEFT's, and llama.cpp's (a GGUF file of the type ``adapter``)."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import TYPE_CHECKING

from runner.errors import FinetuneError
from runner.finetune.trainers.local.gguf import FLOAT32, LAYER, STRING, Kind, rope_order
from runner.finetune.trainers.local.kinds import other_than_lora
from runner.finetune.trainers.local.write import F16, Part, rows, write

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from runner.finetune.trainers.local.gguf import Source

_NAME = re.compile(
    r"model\.layers\.(?P<layer>\d+)\.(?:self_attn|mlp)\.(?P<projection>\w+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight$"
)
_GGUF = {ours.rpartition(".")[2]: theirs for theirs, ours in LAYER.items()}
"""GGUF's names of a layer's modules, by the last part of PEFT's."""


def from_peft(folder: Path, base: Source, out: Path) -> str:
    """Convert a PEFT adapter for llama.cpp. Return the SHA-256 of the file, in hex.

    Args:
        folder: contains ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: the model that it was trained on.
        out: the file to write.

    Raises:
        FinetuneError: it is not a LoRA adapter that llama.cpp can apply (`kinds.KINDS`).
    """
    from safetensors.numpy import load_file

    try:
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError) as error:
        raise FinetuneError(f"{folder} does not hold a PEFT adapter: {error}") from None
    if (kind := other_than_lora(config)) is not None:
        raise FinetuneError(
            f"{folder}: {kind.field}={config[kind.field]!r} ({kind.name}) cannot be served: {kind.why}, and llama.cpp applies "
            "plain LoRA only; merge the adapter into its base, or train plain LoRA"
        )
    if base.fields.get("general.architecture") != "llama" or not {"r", "lora_alpha"} <= config.keys():
        raise FinetuneError(f"{folder} is not a LoRA adapter of a llama model; only these can be served here")
    rank, alpha = config["r"], float(config["lora_alpha"])
    scaled = alpha * math.sqrt(rank) if config.get("use_rslora") else alpha
    heads = base.fields["llama.attention.head_count"]
    key_heads = base.fields.get("llama.attention.head_count_kv", heads)
    return write_gguf(out, weights, alpha=scaled, heads=heads, key_heads=key_heads)


def write_gguf(path: Path, weights: dict[str, np.ndarray], *, alpha: float, heads: int, key_heads: int) -> str:
    """Write an adapter for llama.cpp, whole or not at all. Return the SHA-256 of the file, in hex.

    Args:
        path: the file to write.
        weights: ``lora_A`` (rank × in) and ``lora_B`` (out × rank) by PEFT's names.
        alpha: the adapter's scale is alpha / rank.
        heads: heads of the queries; the rows of B of a q projection are reordered (`rope_order`).
        key_heads: heads of the keys, likewise.

    Raises:
        FinetuneError: llama.cpp has no place for a weight.
        OSError: the file cannot be written.
    """
    fields = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": alpha}
    kinds = dict.fromkeys(fields, Kind(STRING)) | {"adapter.lora.alpha": Kind(FLOAT32)}
    parts = {
        f"{name}.lora_{side}": Part(values.shape, F16, partial(rows, values, F16, f"{path}: {name}"))
        for name, taught in in_gguf(weights, heads=heads, key_heads=key_heads).items()
        for side, values in zip("ab", taught, strict=True)
    }
    return write(path, fields, kinds, parts)


def in_gguf(weights: dict[str, np.ndarray], *, heads: int, key_heads: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Convert an adapter's weights to GGUF's names: for each tensor A and B in float32, with the rows of B in the tensor's order.

    Args:
        weights: the weights by PEFT's names.
        heads: of the queries.
        key_heads: of the keys.

    Raises:
        FinetuneError: llama.cpp has no place for a weight.
    """
    import numpy as np

    rotated = {"q_proj": heads, "k_proj": key_heads}
    sides: dict[str, dict[str, np.ndarray]] = {}
    for name, weight in sorted(weights.items()):
        found = _NAME.search(name)
        if found is None or (projection := found["projection"]) not in _GGUF:
            raise FinetuneError(f"{name} cannot be served: llama.cpp has no place for it in a LoRA adapter")
        values = weight.astype(np.float32)
        if found["part"] == "B" and projection in rotated:
            values = rope_order(values, rotated[projection])
        sides.setdefault(f"blk.{found['layer']}.{_GGUF[projection]}.weight", {})[found["part"]] = values
    return {name: (side["A"], side["B"]) for name, side in sides.items()}
