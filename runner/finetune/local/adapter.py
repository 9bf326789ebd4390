"""What a training leaves: the adapter as PEFT has it, and as llama.cpp reads it (a GGUF file of the type ``adapter``)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from runner.errors import FinetuneError
from runner.finetune.local.gguf import rope_order

if TYPE_CHECKING:
    from pathlib import Path

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


def write_gguf(path: Path, weights: dict[str, Any], *, alpha: float, heads: int, key_heads: int) -> str:
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
        values = weight.detach().float().cpu().numpy()
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
