"""Reads a GGUF file: its metadata, and its tensors as they are stored or as float32; and what a llama's tensors are called in it.

transformers can read GGUF too, and takes 18 seconds for what this does in one: it parses the header three times, in Python
objects per field. The format: ggml's ``docs/gguf.md``, version 3. Dequantising is the package gguf's.
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
"""The types of fields that have a name here, by GGUF's numbers."""

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
"""GGUF's names of what a layer of a llama has, and Hugging Face's."""


class Kind(NamedTuple):
    """The type of a field, by GGUF's number; of an array also that of its items."""

    number: int
    items: int | None = None


class Tensor(NamedTuple):
    """Where a tensor lies: `shape` as in numpy (the file has it the other way round), `offset` from the start of the data."""

    shape: tuple[int, ...]
    kind: int
    offset: int


class Source(Protocol):
    """A model in the terms of GGUF: a file, or a folder that is read as one (`runner.finetune.trainers.local.folder`).

    Attributes:
        path: where it lies.
        fields: its metadata by key.
        kinds: the type of each of these.
        tensors: by name.
    """

    path: Path
    fields: dict[str, Any]
    kinds: dict[str, Kind]
    tensors: dict[str, Tensor]

    def raw(self, name: str) -> np.ndarray:
        """A tensor as it is stored: bytes, in rows."""

    def floats(self, name: str) -> np.ndarray:
        """A tensor in float32."""


class GGUF:
    """One file.

    Attributes:
        path: the file.
        fields: its metadata by key.
        kinds: the type of each of these.
        tensors: by name.

    Raises:
        FinetuneError: it cannot be read, or is no GGUF file of version 2 or 3.
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
            raise FinetuneError(f"{path} is no GGUF file that can be read: its header is broken ({error})") from None

    def raw(self, name: str) -> np.ndarray:
        """A tensor as it is stored: bytes, in rows.

        Raises:
            FinetuneError: there is none of this name, it is of a type that is not known, or the file ends before it does.
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
        """A tensor, dequantised to float32.

        Raises:
            FinetuneError: as `raw`, or it is quantised in a way that cannot be undone.
        """
        return dequantised(self.raw(name), self.tensors[name], f"{self.path}: {name}")

    def _read_header(self) -> None:
        if self._bytes[:4] != _MAGIC:
            raise FinetuneError(f"{self.path} is no GGUF file")
        self._at = 4
        version = self._scalar("I")
        if version not in (2, 3):
            raise FinetuneError(f"{self.path}: GGUF version {version} is not one that can be read (2, 3)")
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
    """The rows of a tensor, and the bytes of each. Raises FinetuneError with `what` when its type is not known."""
    from gguf import GGMLQuantizationType
    from gguf.constants import GGML_QUANT_SIZES

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
    except (KeyError, ValueError) as error:
        raise FinetuneError(f"{what} is stored as type {tensor.kind}, which cannot be read: {error}") from None
    *rows, columns = tensor.shape
    return (*rows, columns // block * size)


def dequantised(raw: np.ndarray, tensor: Tensor, what: str) -> np.ndarray:
    """Rows of bytes as float32. Raises FinetuneError with `what` when they are quantised in a way that cannot be undone."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        return np.array(dequantize(raw, GGMLQuantizationType(tensor.kind)), dtype=np.float32).reshape(tensor.shape)
    except (ValueError, NotImplementedError) as error:
        raise FinetuneError(f"{what} is stored as type {tensor.kind}, which cannot be read: {error}") from None


def rope_order(weight: Any, heads: int) -> Any:
    """Rows of a q or k projection as llama.cpp has them, from the order that Hugging Face has them in. Works on numpy and torch.

    llama.cpp rotates neighbouring rows of a head together, Hugging Face those half a head apart; converting between the two is
    a permutation, and leaving it out is an error that nothing shows but the log-probabilities.
    """
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def half_order(weight: Any, heads: int) -> Any:
    """The other way round: rows as Hugging Face has them, from llama.cpp's order."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def names_of(layers: int, *, tied: bool) -> dict[str, str]:
    """The weights of a llama: GGUF's name and that of transformers, both without ``.weight``.

    Args:
        layers: how many there are.
        tied: whether the output layer is the embedding.
    """
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    for layer in range(layers):
        names |= {f"blk.{layer}.{theirs}": f"model.layers.{layer}.{ours}" for theirs, ours in LAYER.items()}
    return names if tied else {**names, "output": "lm_head"}
