"""Read the tensors of a Hugging Face folder as bytes. safetensors itself reads bf16 only into torch, which serving does not need.

The format: eight bytes with the length of a header in JSON, the header, the data.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from typing import TYPE_CHECKING, Any

from runner.errors import FinetuneError
from runner.finetune.trainers.local.write import BF16, F16, F32

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

FLOATS = {"F32": F32, "F16": F16, "BF16": BF16}
"""safetensors' names of the float types, and GGUF's numbers."""


class Shards:
    """The tensors of one model, by name. Raises FinetuneError if a file cannot be read."""

    def __init__(self, files: list[Path]) -> None:
        self._where: dict[str, tuple[Path, mmap.mmap, int, dict[str, Any]]] = {}
        for path in files:
            try:
                with path.open("rb") as file:
                    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                (size,) = struct.unpack_from("<Q", content)
                header = json.loads(content[8 : 8 + size])
            except (OSError, ValueError, struct.error) as error:
                raise FinetuneError(f"{path} cannot be read: {error}") from None
            header.pop("__metadata__", None)
            self._where |= {name: (path, content, 8 + size, facts) for name, facts in header.items()}

    @classmethod
    def of(cls, folder: Path) -> Shards:
        """Open the files of a model: one file, or the shards that the index names."""
        index = folder / "model.safetensors.index.json"
        if not index.is_file():
            return cls([folder / "model.safetensors"])
        try:
            shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError) as error:
            raise FinetuneError(f"{index} cannot be read: {error}") from None
        return cls([folder / shard for shard in shards])

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def described(self, name: str) -> tuple[tuple[int, ...], str]:
        """Return the shape of a tensor, and safetensors' name of its type."""
        facts = self._where[name][3]
        return tuple(facts["shape"]), facts["dtype"]

    def raw(self, name: str) -> tuple[int, np.ndarray]:
        """Return GGUF's number of a tensor's type, and its bytes. Raises FinetuneError if some are missing."""
        import numpy as np

        path, content, data, facts = self._where[name]
        begin, end = facts["data_offsets"]
        kind = FLOATS[facts["dtype"]]
        if data + end > len(content) or end - begin != math.prod(facts["shape"]) * (4 if kind == F32 else 2):
            raise FinetuneError(f"{path} does not hold all of {name}; was it fetched whole?")
        return kind, np.frombuffer(content, np.uint8, end - begin, data + begin)
