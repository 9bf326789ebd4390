"""Which adapters of PEFT are plain LoRA: the only kind that llama.cpp applies as it was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(NamedTuple):
    """A field of ``adapter_config.json`` that makes an adapter something else than plain LoRA.

    Attributes:
        field: its name.
        words: beginnings of the values that do; empty: every value that is set.
        name: what people call such an adapter.
        why: what a server of plain LoRA gets wrong.
        source: where that was read.
    """

    field: str
    words: tuple[str, ...]
    name: str
    why: str
    source: str = "PEFT 0.21, tuners/lora/config.py"


_BASE = "it belongs to a base whose weights the initialisation has changed"

KINDS = (
    Kind("use_dora", (), "DoRA", "it also scales the magnitude of each weight"),
    Kind("modules_to_save", (), "modules_to_save", "it replaces whole modules of the base"),
    Kind("rank_pattern", (), "rank_pattern", "its modules have different ranks"),
    Kind("alpha_pattern", (), "alpha_pattern", "its modules have different scales"),
    Kind("bias", (), "bias", "it changes biases of the base"),
    Kind("lora_bias", (), "lora_bias", "it adds biases"),
    Kind("init_lora_weights", ("pissa",), "PiSSA", _BASE),
    Kind("init_lora_weights", ("olora",), "OLoRA", _BASE),
    Kind("init_lora_weights", ("corda",), "CorDA", _BASE),
    Kind("init_lora_weights", ("loftq",), "LoftQ", _BASE),
    Kind("init_lora_weights", ("lora_ga",), "LoRA-GA", _BASE),
    Kind("corda_config", (), "CorDA", _BASE),
    Kind("lora_ga_config", (), "LoRA-GA", _BASE),
    Kind("loftq_config", (), "LoftQ", _BASE),
    Kind("alora_invocation_tokens", (), "aLoRA", "it acts only after certain tokens of the prompt"),
    Kind("use_qalora", (), "QALoRA", "it pools the inputs of each module in groups"),
    Kind("layer_replication", (), "layer_replication", "its base has some layers several times"),
    Kind("trainable_token_indices", (), "trainable_token_indices", "it changes embeddings of the base"),
    Kind("target_parameters", (), "target_parameters", "it changes parameters outside linear modules"),
    Kind("arrow_config", (), "Arrow", "it chooses between adapters for each token"),
    Kind("kasa_config", (), "KaSA", "it scales its parts by values of its own"),
    Kind("use_bdlora", (), "BD-LoRA", "its matrices are blocks on a diagonal"),
    Kind("monteclora_config", (), "MonteCLoRA", "its weights are drawn at random"),
)
"""Adapters that llama.cpp would load, and apply wrongly without a word."""

_UNSET: tuple[Any, ...] = (None, False, {}, [], "", "none")


def other_than_lora(config: Mapping[str, Any]) -> Kind | None:
    """Return what makes the adapter of this ``adapter_config.json`` something else than plain LoRA; None if it is plain."""
    return next((kind for kind in KINDS if _is(kind, config.get(kind.field))), None)


def _is(kind: Kind, value: Any) -> bool:
    if not kind.words:
        return value not in _UNSET
    return isinstance(value, str) and value.lower().startswith(kind.words)
