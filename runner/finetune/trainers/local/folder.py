"""Read a llama in a Hugging Face folder in GGUF's terms, so that llama.cpp can serve it and its adapters.

Weights keep their values and types; the rows of q and k are reordered (`rope_order`), and vectors become f32, as llama.cpp
expects. GGUF's keys: ggml's ``docs/gguf.md``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runner.errors import FinetuneError
from runner.finetune.trainers.local import bpe
from runner.finetune.trainers.local.gguf import (
    ARRAY,
    BOOL,
    FLOAT32,
    INT32,
    STRING,
    UINT32,
    Kind,
    Tensor,
    dequantised,
    names_of,
    rope_order,
    stored_shape,
)
from runner.finetune.trainers.local.shards import FLOATS, Shards
from runner.finetune.trainers.local.write import F32

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

_KINDS = {str: Kind(STRING), bool: Kind(BOOL), int: Kind(UINT32), float: Kind(FLOAT32)}
_ADVICE = (
    "convert it with llama.cpp's convert_hf_to_gguf.py and name the .gguf file instead, or serve the folder with vLLM or SGLang"
)


class Folder:
    """One folder; a `runner.finetune.trainers.local.gguf.Source`.

    Attributes:
        path: the folder.
        fields: its config and tokenizer, by GGUF's keys.
        kinds: the types of the fields.
        tensors: the tensors by GGUF's names.

    Raises:
        FinetuneError: it cannot be read, or its architecture or tokenizer is one that llama.cpp would not reproduce.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._read()
        except (KeyError, TypeError, AttributeError) as error:
            raise FinetuneError(f"{path}: its config or its tokenizer has an unknown form: {error!r}") from None

    def raw(self, name: str) -> np.ndarray:
        """Return a tensor as it is to be stored: bytes, in rows. Raises FinetuneError if there is none of this name."""
        import numpy as np

        if name not in self.tensors:
            raise FinetuneError(f"{self.path} has no tensor {name}")
        kind, values = self._stored.raw(self._names[name])
        if len(self.tensors[name].shape) == 1:
            return dequantised(values, Tensor(self.tensors[name].shape, kind, 0), name).view(np.uint8)
        values = values.reshape(stored_shape(self.tensors[name], name))
        if name.endswith("attn_q.weight"):
            return rope_order(values, self.fields["llama.attention.head_count"])  # type: ignore[no-any-return]
        if name.endswith("attn_k.weight"):
            return rope_order(values, self.fields["llama.attention.head_count_kv"])  # type: ignore[no-any-return]
        return values

    def floats(self, name: str) -> np.ndarray:
        """Return a tensor in float32. Raises FinetuneError if there is none of this name."""
        return dequantised(self.raw(name), self.tensors[name], f"{self.path}: {name}")

    def _read(self) -> None:
        config = self._json("config.json")
        self._stored = Shards.of(self.path)
        tied = bool(config.get("tie_word_embeddings")) or "lm_head.weight" not in self._stored
        self.fields: dict[str, Any] = self._architecture(config) | self._tokenizer(config)
        self.kinds = {name: _kind(value) for name, value in self.fields.items()}
        self._names = {
            f"{ours}.weight": f"{theirs}.weight" for ours, theirs in names_of(config["num_hidden_layers"], tied=tied).items()
        }
        self.tensors = {name: self._described(theirs) for name, theirs in self._names.items()}

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            raise FinetuneError(f"{self.path / name} cannot be read: {said}") from None

    def _refused(self, why: str) -> FinetuneError:
        return FinetuneError(f"{self.path}: {why}, so it cannot be written as a GGUF file here; {_ADVICE}")

    def _described(self, theirs: str) -> Tensor:
        if theirs not in self._stored:
            raise self._refused(f"it has no weight {theirs}")
        shape, kind = self._stored.described(theirs)
        if kind not in FLOATS:
            raise self._refused(f"{theirs} is stored as {kind}")
        return Tensor(shape, F32 if len(shape) == 1 else FLOATS[kind], 0)

    def _architecture(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the config in GGUF's keys."""
        if config.get("model_type") != "llama":
            raise self._refused(f"its architecture is {config.get('model_type')}, and only llama is supported")
        heads, width = config["num_attention_heads"], config["hidden_size"]
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        for what, other in {
            f"head_dim is {config.get('head_dim')}": config.get("head_dim") not in (None, width // heads),
            f"hidden_act is {config.get('hidden_act')}": config.get("hidden_act", "silu") != "silu",
            "its projections have biases": config.get("attention_bias") or config.get("mlp_bias"),
            f"its rope is scaled ({rope})": rope.get("rope_type", rope.get("type", "default")) != "default",
        }.items():
            if other:
                raise self._refused(what)
        return {
            "general.architecture": "llama",
            "general.type": "model",
            "llama.block_count": config["num_hidden_layers"],
            "llama.context_length": config["max_position_embeddings"],
            "llama.embedding_length": width,
            "llama.feed_forward_length": config["intermediate_size"],
            "llama.attention.head_count": heads,
            "llama.attention.head_count_kv": config.get("num_key_value_heads") or heads,
            "llama.rope.freq_base": float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
            "llama.vocab_size": config["vocab_size"],
            "llama.rope.dimension_count": width // heads,
        }

    def _tokenizer(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the tokenizer in GGUF's keys."""
        settings = self._json("tokenizer_config.json")
        try:
            fields = bpe.fields_of(self._json("tokenizer.json"), settings, config)
        except FinetuneError as error:
            raise self._refused(str(error)) from None
        if (template := self._template(settings)) is not None:
            fields["tokenizer.chat_template"] = template
        return fields

    def _template(self, settings: dict[str, Any]) -> str | None:
        file = self.path / "chat_template.jinja"
        if file.is_file():
            return file.read_text("utf-8")
        found = settings.get("chat_template")
        if isinstance(found, list):  # several, by name
            found = next((each["template"] for each in found if each.get("name") == "default"), None)
        return found


def _kind(value: Any) -> Kind:
    """Return GGUF's type of a field's value."""
    if isinstance(value, list):
        return Kind(ARRAY, STRING if isinstance(value[0], str) else INT32)
    return _KINDS[type(value)]
