"""What a training leaves: the adapter as PEFT has it, and as llama.cpp reads it (a GGUF file of the type ``adapter``)."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import TYPE_CHECKING

from runner.errors import FinetuneError
from runner.finetune.trainers.local.gguf import FLOAT32, LAYER, STRING, Kind, rope_order
from runner.finetune.trainers.local.write import F16, Part, rows, write

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from runner.finetune.trainers.local.gguf import Source

_UNSERVABLE = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "bias")
_NAME = re.compile(
    r"model\.layers\.(?P<layer>\d+)\.(?:self_attn|mlp)\.(?P<projection>\w+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight$"
)
_GGUF = {ours.rpartition(".")[2]: theirs for theirs, ours in LAYER.items()}
"""What GGUF calls a module of a layer, by the last part of its name."""


def from_peft(folder: Path, base: Source, out: Path) -> str:
    """Write the adapter in a folder of PEFT's for llama.cpp. Returns the SHA-256 of the file, in hex.

    Args:
        folder: has ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: the model that it was trained on.
        out: the file to write.

    Raises:
        FinetuneError: it is no LoRA adapter that llama.cpp could apply: DoRA, whole modules, ranks or biases of their own.
    """
    from safetensors.numpy import load_file

    try:
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError) as error:
        raise FinetuneError(f"{folder} holds no adapter of PEFT's: {error}") from None
    for name in _UNSERVABLE:
        if config.get(name) not in (None, False, {}, [], "none"):
            raise FinetuneError(f"{folder}: {name}={config[name]!r} cannot be served: llama.cpp applies plain LoRA only")
    if base.fields.get("general.architecture") != "llama" or not {"r", "lora_alpha"} <= config.keys():
        raise FinetuneError(f"{folder} is no LoRA adapter of a llama model, and only these can be served here")
    rank, alpha = config["r"], float(config["lora_alpha"])
    scaled = alpha * math.sqrt(rank) if config.get("use_rslora") else alpha
    heads = base.fields["llama.attention.head_count"]
    key_heads = base.fields.get("llama.attention.head_count_kv", heads)
    return write_gguf(out, weights, alpha=scaled, heads=heads, key_heads=key_heads)


def write_gguf(path: Path, weights: dict[str, np.ndarray], *, alpha: float, heads: int, key_heads: int) -> str:
    """Write the adapter for llama.cpp, whole or not at all. Returns the SHA-256 of the file, in hex.

    Args:
        path: where to.
        weights: ``lora_A`` (rank × in) and ``lora_B`` (out × rank) by PEFT's names.
        alpha: the adapter's scale is alpha / rank.
        heads: of the queries; rows of B of a q projection change places (`rope_order`).
        key_heads: of the keys, likewise.

    Raises:
        FinetuneError: a weight that llama.cpp has no place for.
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
    """What an adapter adds to each tensor of GGUF's: A and B in float32, the rows of B in the order that the tensor has.

    Args:
        weights: by PEFT's names.
        heads: of the queries.
        key_heads: of the keys.

    Raises:
        FinetuneError: a weight that llama.cpp has no place for.
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
