"""Reads a GGUF file: its metadata, and its tensors as float32. Knows nothing of models.

transformers can read GGUF too, and takes 18 seconds for what this does in one: it parses the header three times, in Python
objects per field. The format: ggml's ``docs/gguf.md``, version 3. Dequantising is the package gguf's.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.errors import FinetuneError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_ALIGNMENT = 32


class Tensor(NamedTuple):
    """Where a tensor lies: `shape` as in numpy (the file has it the other way round), `offset` from the start of the data."""

    shape: tuple[int, ...]
    kind: int
    offset: int


class GGUF:
    """One file.

    Attributes:
        path: the file.
        fields: its metadata by key.
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

    def floats(self, name: str) -> np.ndarray:
        """A tensor, dequantised to float32.

        Raises:
            FinetuneError: there is none of this name, or it is quantised in a way that cannot be undone.
        """
        import numpy as np
        from gguf import GGMLQuantizationType
        from gguf.constants import GGML_QUANT_SIZES
        from gguf.quants import dequantize

        if name not in self.tensors:
            raise FinetuneError(f"{self.path} has no tensor {name}")
        tensor = self.tensors[name]
        try:
            kind = GGMLQuantizationType(tensor.kind)
            block, size = GGML_QUANT_SIZES[kind]
            *rows, columns = tensor.shape
            width = columns // block * size
            count = width * int(np.prod(rows, dtype=np.int64))
            raw = np.frombuffer(self._bytes, np.uint8, count, self._data + tensor.offset).reshape(*rows, width)
            return np.array(dequantize(raw, kind), dtype=np.float32).reshape(tensor.shape)
        except (KeyError, ValueError, NotImplementedError) as error:
            raise FinetuneError(f"{self.path}: {name} is stored as type {tensor.kind}, which cannot be read: {error}") from None

    def _read_header(self) -> None:
        if self._bytes[:4] != _MAGIC:
            raise FinetuneError(f"{self.path} is no GGUF file")
        self._at = 4
        version = self._scalar("I")
        if version not in (2, 3):
            raise FinetuneError(f"{self.path}: GGUF version {version} is not one that can be read (2, 3)")
        tensors, fields = self._scalar("Q"), self._scalar("Q")
        self.fields: dict[str, Any] = dict(self._field() for _ in range(fields))
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
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        inner, count = self._scalar("I"), self._scalar("Q")
        if inner in (_STRING, _ARRAY):
            return [self._value(inner) for _ in range(count)]
        code = f"<{count}{_SCALARS[inner]}"
        values = list(struct.unpack_from(code, self._bytes, self._at))
        self._at += struct.calcsize(code)
        return values

    def _field(self) -> tuple[str, Any]:
        name, kind = self._string(), self._scalar("I")
        return name, self._value(kind)

    def _tensor(self) -> tuple[str, Tensor]:
        name, dimensions = self._string(), self._scalar("I")
        shape = [self._scalar("Q") for _ in range(dimensions)]
        return name, Tensor(tuple(reversed(shape)), self._scalar("I"), self._scalar("Q"))


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


def layers_of(fields: dict[str, Any]) -> Iterator[int]:
    """The numbers of the layers."""
    yield from range(int(fields["llama.block_count"]))
