"""What a training leaves: the adapter as PEFT has it, and as llama.cpp reads it (a GGUF file of the type ``adapter``)."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import TYPE_CHECKING

from runner.errors import FinetuneError
from runner.finetune.local.gguf import rope_order

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from runner.finetune.local.gguf import GGUF

_UNSERVABLE = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "bias")
_NAME = re.compile(
    r"model\.layers\.(?P<layer>\d+)\.(?:self_attn|mlp)\.(?P<projection>\w+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight$"
)
_GGUF = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def from_peft(folder: Path, base: GGUF, out: Path) -> str:
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
    """
    import gguf
    import numpy as np

    draft = path.with_name(f".{path.name}.part")
    writer = gguf.GGUFWriter(draft, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, weight in sorted(weights.items()):
        found = _NAME.search(name)
        if found is None or found["projection"] not in _GGUF:
            raise FinetuneError(f"{name} cannot be served: llama.cpp has no place for it in a LoRA adapter")
        values = weight.astype(np.float32)
        if found["part"] == "B" and found["projection"] in ("q_proj", "k_proj"):
            values = rope_order(values, heads if found["projection"] == "q_proj" else key_heads)
        tensor = f"blk.{found['layer']}.{_GGUF[found['projection']]}.weight.lora_{found['part'].lower()}"
        writer.add_tensor(tensor, np.ascontiguousarray(values, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    draft.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
