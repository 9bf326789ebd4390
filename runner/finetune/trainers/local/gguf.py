"""Read GGUF files: metadata, and tensors as stored or as float32. Also GGUF's names of a llama's tensors.

transformers can read GGUF too, but takes 18 seconds for what takes one here: it parses the header three times, in Python objects
per field. The format: ggml's ``docs/gguf.md``, version 3. The package gguf does the dequantising.
"""

from __future__ import annotations

import math
import mmap
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from runner.errors import FinetuneError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

_MAGIC = b"GGUF"
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
"""GGUF's numbers of the types of fields that are named here."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_ALIGNMENT = 32


LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""GGUF's names of a llama layer's parts, and Hugging Face's."""


class Kind(NamedTuple):
    """The type of a field by GGUF's number; for an array also the type of its items."""

    number: int
    items: int | None = None


class Tensor(NamedTuple):
    """The place of a tensor: `shape` as in numpy (reversed in the file), `offset` in bytes from the start of the data."""

    shape: tuple[int, ...]
    kind: int
    offset: int


class Source(Protocol):
    """A model in GGUF's terms: a file, or a folder that is read as one (`runner.finetune.trainers.local.folder`).

    Attributes:
        path: the file or folder.
        fields: the metadata by key.
        kinds: the types of the fields.
        tensors: the tensors by name.
    """

    path: Path
    fields: dict[str, Any]
    kinds: dict[str, Kind]
    tensors: dict[str, Tensor]

    def raw(self, name: str) -> np.ndarray:
        """Return a tensor as it is stored: bytes, in rows."""

    def floats(self, name: str) -> np.ndarray:
        """Return a tensor in float32."""


class GGUF:
    """One GGUF file.

    Attributes:
        path: the file.
        fields: the metadata by key.
        kinds: the types of the fields.
        tensors: the tensors by name.

    Raises:
        FinetuneError: it cannot be read, or is not a GGUF file of version 2 or 3.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise FinetuneError(f"{path} cannot be read: {error}") from None
        self._at = 0
        try:
            self._read_header()
        except (struct.error, UnicodeDecodeError, KeyError, IndexError) as error:
            raise FinetuneError(f"{path} is not a readable GGUF file: its header is broken ({error})") from None

    def raw(self, name: str) -> np.ndarray:
        """Return a tensor as it is stored: bytes, in rows.

        Raises:
            FinetuneError: there is none of this name, its type is unknown, or the file ends before it does.
        """
        import numpy as np

        if name not in self.tensors:
            raise FinetuneError(f"{self.path} has no tensor {name}")
        tensor = self.tensors[name]
        shape = stored_shape(tensor, f"{self.path}: {name}")
        try:
            return np.frombuffer(self._bytes, np.uint8, math.prod(shape), self._data + tensor.offset).reshape(shape)
        except ValueError:
            raise FinetuneError(f"{self.path} ends before {name} does; was it fetched whole?") from None

    def floats(self, name: str) -> np.ndarray:
        """Return a tensor, dequantised to float32.

        Raises:
            FinetuneError: as `raw`, or its quantisation cannot be undone.
        """
        return dequantised(self.raw(name), self.tensors[name], f"{self.path}: {name}")

    def _read_header(self) -> None:
        if self._bytes[:4] != _MAGIC:
            raise FinetuneError(f"{self.path} is not a GGUF file")
        self._at = 4
        version = self._scalar("I")
        if version not in (2, 3):
            raise FinetuneError(f"{self.path}: GGUF version {version} cannot be read, only 2 and 3")
        tensors, fields = self._scalar("Q"), self._scalar("Q")
        self.fields: dict[str, Any] = {}
        self.kinds: dict[str, Kind] = {}
        for _ in range(fields):
            self._read_field()
        self.tensors: dict[str, Tensor] = dict(self._tensor() for _ in range(tensors))
        alignment = self.fields.get("general.alignment", _ALIGNMENT)
        self._data = -(-self._at // alignment) * alignment

    def _scalar(self, code: str) -> Any:
        size = struct.calcsize(f"<{code}")
        (value,) = struct.unpack_from(f"<{code}", self._bytes, self._at)
        self._at += size
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        self._at += length
        return self._bytes[self._at - length : self._at].decode()

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._scalar(_SCALARS[kind])
        inner, count = self._scalar("I"), self._scalar("Q")
        if inner in (STRING, ARRAY):
            return [self._value(inner) for _ in range(count)]
        code = f"<{count}{_SCALARS[inner]}"
        values = list(struct.unpack_from(code, self._bytes, self._at))
        self._at += struct.calcsize(code)
        return values

    def _read_field(self) -> None:
        name, kind = self._string(), self._scalar("I")
        items = struct.unpack_from("<I", self._bytes, self._at)[0] if kind == ARRAY else None
        self.kinds[name] = Kind(kind, items)
        self.fields[name] = self._value(kind)

    def _tensor(self) -> tuple[str, Tensor]:
        name, dimensions = self._string(), self._scalar("I")
        shape = [self._scalar("Q") for _ in range(dimensions)]
        return name, Tensor(tuple(reversed(shape)), self._scalar("I"), self._scalar("Q"))


def stored_shape(tensor: Tensor, what: str) -> tuple[int, ...]:
    """Return a tensor's shape in bytes: rows, and bytes per row. Raises FinetuneError with `what` if its type is unknown."""
    from gguf import GGMLQuantizationType
    from gguf.constants import GGML_QUANT_SIZES

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
    except (KeyError, ValueError) as error:
        raise FinetuneError(f"{what} is stored as type {tensor.kind}, which cannot be read: {error}") from None
    *rows, columns = tensor.shape
    return (*rows, columns // block * size)


def dequantised(raw: np.ndarray, tensor: Tensor, what: str) -> np.ndarray:
    """Turn rows of bytes into float32. Raises FinetuneError with `what` if their quantisation cannot be undone."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        return np.array(dequantize(raw, GGMLQuantizationType(tensor.kind)), dtype=np.float32).reshape(tensor.shape)
    except (ValueError, NotImplementedError) as error:
        raise FinetuneError(f"{what} is stored as type {tensor.kind}, which cannot be read: {error}") from None


def rope_order(weight: Any, heads: int) -> Any:
    """Reorder the rows of a q or k projection from Hugging Face's order to llama.cpp's. Works on numpy and torch.

    llama.cpp rotates neighbouring rows of a head together, Hugging Face rows half a head apart, so converting is a permutation.
    Without it only the log-probabilities are wrong; nothing else shows the error.
    """
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def half_order(weight: Any, heads: int) -> Any:
    """Reorder rows the other way round: from llama.cpp's order to Hugging Face's."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def names_of(layers: int, *, tied: bool) -> dict[str, str]:
    """Map the weights of a llama from GGUF's names to transformers', both without ``.weight``.

    Args:
        layers: the number of layers.
        tied: whether the output layer is the embedding.
    """
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    for layer in range(layers):
        names |= {f"blk.{layer}.{theirs}": f"model.layers.{layer}.{ours}" for theirs, ours in LAYER.items()}
    return names if tied else {**names, "output": "lm_head"}
