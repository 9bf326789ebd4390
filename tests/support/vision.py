"""A vision model that sees one thing: the colour of a picture. It is a projector for SmolLM2, served by llama.cpp.

No package of the index has the weights of a vision model. So this one is made by hand, in the format of llama.cpp (LLaVA's
projector, GGUF): one patch covers the picture, its mean red, green and blue pass through layers of zeros, and each is turned
into the embedding of the word for it. What the language model reads in place of the picture is the word.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
_SIDE, _WIDTH, _LAYERS = 14, 32, 2
_LINEAR = 20.0
"""Where GELU returns what it is given."""

_SERVE = """
import signal, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.mmproj.path = sys.argv[1:3]
params.hostnames, params.port = ["127.0.0.1"], 0
params.n_ctx, params.n_parallel, params.mmproj_use_gpu, params.ui = 1024, 1, False, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.pause()
"""


def picture(colour: str) -> bytes:
    """A PNG of one colour."""
    rows = (b"\0" + bytes(COLOURS[colour]) * _SIDE) * _SIDE
    parts = [(b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write_projector(file: Path, weights: Path) -> None:
    """Write the projector to the language model in `weights`."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(weights)
    tokens = reader.fields["tokenizer.ggml.tokens"]
    words = [bytes(tokens.parts[index]).decode() for index in tokens.data]
    table = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    embeddings = gguf.quants.dequantize(table.data, table.tensor_type)

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    see, gain, say = zeros(_WIDTH, 3, _SIDE, _SIDE), zeros(_WIDTH, _WIDTH), zeros(embeddings.shape[1], _WIDTH)
    for channel, colour in enumerate(COLOURS):
        see[channel, channel] = 1 / _SIDE**2
        gain[channel, channel] = _LINEAR
        say[:, channel] = embeddings[words.index(f"Ġ{colour}")] / _LINEAR
    tensors = {"v.patch_embd.weight": see, "v.position_embd.weight": zeros(1, _WIDTH)}
    for layer in range(_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down", "ln1", "ln2"):
            shape = (_WIDTH,) if name.startswith("ln") else (_WIDTH, _WIDTH)
            tensors |= {f"v.blk.{layer}.{name}.weight": zeros(*shape), f"v.blk.{layer}.{name}.bias": zeros(_WIDTH)}
    tensors |= {"mm.0.weight": gain, "mm.0.bias": zeros(_WIDTH), "mm.2.weight": say, "mm.2.bias": zeros(len(say))}

    writer = gguf.GGUFWriter(file, "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_vision_image_size(_SIDE)
    writer.add_vision_patch_size(_SIDE)
    writer.add_vision_embedding_length(_WIDTH)
    writer.add_vision_feed_forward_length(_WIDTH)
    writer.add_vision_projection_dim(len(say))
    writer.add_vision_block_count(_LAYERS)
    writer.add_vision_head_count(1)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean([0.0] * 3)
    writer.add_vision_image_std([1.0] * 3)
    writer.add_vision_use_gelu(True)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextmanager
def serving(weights: Path, projector: Path, log: Path) -> Iterator[str]:
    """Serve a language model with its projector; yield the address of requests."""
    command = [sys.executable, "-c", _SERVE, weights, projector]
    with log.open("w") as err, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            assert address, log.read_text()
            yield f"{address}/v1"
        finally:
            server.kill()
