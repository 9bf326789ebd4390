"""Write GGUF files, whole or not at all: under a temporary name, flushed to disk, renamed. One tensor is in memory at a time."""

from __future__ import annotations

import hashlib
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.errors import FinetuneError
from runner.finetune.trainers.local.gguf import Tensor, stored_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    from runner.finetune.trainers.local.gguf import Kind, Source

F32, F16, BF16 = 0, 1, 30
"""GGUF's numbers of the float types."""

_ARCHITECTURE, _ALIGNMENT = "general.architecture", "general.alignment"


class Part(NamedTuple):
    """A tensor to write: `shape` as in numpy; `made` returns its rows of bytes when it is written."""

    shape: tuple[int, ...]
    kind: int
    made: Callable[[], np.ndarray]


def kept(source: Source) -> dict[str, Part]:
    """Take over the tensors of a model as they are."""

    def part(name: str) -> Part:
        tensor = source.tensors[name]
        return Part(tensor.shape, tensor.kind, lambda: source.raw(name))

    return {name: part(name) for name in source.tensors}


def write(path: Path, fields: Mapping[str, Any], kinds: Mapping[str, Kind], parts: Mapping[str, Part]) -> str:
    """Write a file. Return its SHA-256, in hex.

    Args:
        path: the file to write.
        fields: the metadata.
        kinds: the types of the metadata.
        parts: the tensors.

    Raises:
        FinetuneError: a tensor's type is unknown.
        OSError: the file cannot be written; nothing is left of it.
    """
    import gguf

    draft = path.with_name(f".{path.name}.part")
    writer = gguf.GGUFWriter(draft, fields[_ARCHITECTURE])
    writer.data_alignment = fields.get(_ALIGNMENT, writer.data_alignment)
    for name, value in fields.items():
        if name != _ARCHITECTURE and value != []:  # the writer has written the first, and cannot write an empty list
            number, items = kinds[name]
            items = None if items is None else gguf.GGUFValueType(items)
            writer.add_key_value(name, value, gguf.GGUFValueType(number), items)
    for name, (shape, kind, _) in parts.items():
        size = math.prod(stored_shape(Tensor(shape, kind, 0), f"{path}: {name}"))
        writer.add_tensor_info(name, shape, None, size, gguf.GGMLQuantizationType(kind))  # type: ignore[arg-type]
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for part in parts.values():
            writer.write_tensor_data(part.made())
        writer.close()
        with draft.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        draft.replace(path)
    finally:
        writer.close()
        draft.unlink(missing_ok=True)
    return digest


def rows(values: np.ndarray, kind: int, what: str) -> np.ndarray:
    """Convert float32 to rows of bytes of a float type. Raises FinetuneError with `what` if a value is too large for it."""
    import gguf
    import numpy as np

    with np.errstate(over="ignore"):
        made = gguf.quantize(np.ascontiguousarray(values, np.float32), gguf.GGMLQuantizationType(kind))
    if kind == F16 and not np.isfinite(made).all():
        raise FinetuneError(f"{what} holds a value that is too large for 16 bits, or is not a number")
    return made.view(np.uint8)
