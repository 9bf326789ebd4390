"""Load the base model into torch, with its tokenizer, from a GGUF file or a Hugging Face folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from runner.errors import FinetuneError
from runner.finetune.trainers.local.gguf import GGUF, half_order, names_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from runner.finetune.jobs.spec import Base

_CONTROL = 3
"""GGUF's type of control tokens."""

PRE_TOKENIZERS = {"smollm": True, "gpt-2": False}
"""The known pre-tokenizers by GGUF's names, and whether they split off single digits."""


class Tokenizer(Protocol):
    """Turn text into ids, and a conversation into text. Control tokens in plain text stay text: see `encode` and `quoted`."""

    begin: int | None
    """The id that the server puts before every text; None: no id is added."""
    end: int
    """The id that ends an answer."""

    def encode(self, text: str, *, marks: bool) -> list[int]:
        """Return the ids of `text`; with `marks`, read its control tokens as such, except `quoted` ones."""

    def quoted(self, text: str) -> str:
        """Quote `text` for a chat template, so that what spells a control token in it stays text in `encode`."""

    def render(self, messages: list[dict[str, Any]], *, ask: bool) -> str:
        """Render a conversation by the chat template; with `ask`, add the beginning of the assistant's turn."""


class Loaded(NamedTuple):
    """A model in float32 on the CPU, its tokenizer, and how many query and key heads it has."""

    model: Any
    tokenizer: Tokenizer
    heads: int
    key_heads: int


def load(base: Base) -> Loaded:
    """Load the base of a spec.

    Raises:
        FinetuneError: it cannot be read, or its architecture cannot be trained here.
    """
    if base.gguf is not None:
        return _from_gguf(GGUF(Path(base.gguf)))
    if base.hf is not None:
        return _from_folder(Path(base.hf))
    raise FinetuneError(f"{base.name}: the spec names neither a GGUF file nor a folder")


_SEAM = "\ufdd0"
"""Separates the letters of text that only looks like a control token (`Tokenizer.quoted`) while a chat template is rendered.
Unicode reserves this character for internal use, so it never occurs in text."""


class _Marks:
    """The control tokens of a vocabulary, for encoding text with and without them."""

    def __init__(self, ids: dict[str, int], plain: Callable[[str], list[int]]) -> None:
        self._ids, self._plain = ids, plain
        self._spelled = re.compile("|".join(map(re.escape, sorted(ids, key=len, reverse=True))) or r"(?!)")

    def quoted(self, text: str) -> str:
        return self._spelled.sub(lambda found: _SEAM.join(found[0]), text.replace(_SEAM, ""))

    def encode(self, text: str) -> list[int]:
        """Encode text: control tokens are read as such, and quoted ones as plain text."""
        ids: list[int] = []
        at = 0
        for found in self._spelled.finditer(text):
            ids += self._plain(text[at : found.start()].replace(_SEAM, ""))
            ids.append(self._ids[found[0]])
            at = found.end()
        return ids + self._plain(text[at:].replace(_SEAM, ""))


class _GGUFTokenizer:
    """The tokenizer that a GGUF file describes, splitting text exactly as llama.cpp does."""

    def __init__(self, file: GGUF) -> None:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers

        fields = file.fields
        splits = fields.get("tokenizer.ggml.pre")
        if fields.get("tokenizer.ggml.model") != "gpt2" or splits not in PRE_TOKENIZERS:
            raise FinetuneError(f"{file.path}: its tokenizer ({splits}) is not supported; train from a Hugging Face folder")
        tokens: list[str] = fields["tokenizer.ggml.tokens"]
        merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        self._bpe = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = [pre_tokenizers.Digits(individual_digits=True)] if PRE_TOKENIZERS[splits] else []
        self._bpe.pre_tokenizer = pre_tokenizers.Sequence([*digits, level])
        self._bpe.decoder = decoders.ByteLevel()
        kinds = fields.get("tokenizer.ggml.token_type", [])
        self.begin = int(fields["tokenizer.ggml.bos_token_id"]) if fields.get("tokenizer.ggml.add_bos_token") else None
        self.end = int(fields["tokenizer.ggml.eos_token_id"])
        marks = {tokens[number]: number for number, kind in enumerate(kinds) if kind == _CONTROL}
        self._marks = _Marks({**marks, tokens[self.end]: self.end}, lambda text: self.encode(text, marks=False))
        self._template = _template(fields, tokens)

    def encode(self, text: str, *, marks: bool) -> list[int]:
        return self._marks.encode(text) if marks else list(self._bpe.encode(text, add_special_tokens=False).ids)

    def quoted(self, text: str) -> str:
        return self._marks.quoted(text)

    def render(self, messages: list[dict[str, Any]], *, ask: bool) -> str:
        return str(self._template(messages, ask))


class _FolderTokenizer:
    """The tokenizer of a Hugging Face folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._known = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.end = int(self._known.eos_token_id)
        begin = self._known.bos_token_id
        self.begin = begin if begin in self._known.encode("")[:1] else None
        marks = {token.content: number for number, token in self._known.added_tokens_decoder.items() if token.special}
        self._marks = _Marks(marks, lambda text: self.encode(text, marks=False))

    def encode(self, text: str, *, marks: bool) -> list[int]:
        if marks and _SEAM in text:
            return self._marks.encode(text)
        return list(self._known.encode(text, add_special_tokens=False, split_special_tokens=not marks))

    def quoted(self, text: str) -> str:
        return self._marks.quoted(text)

    def render(self, messages: list[dict[str, Any]], *, ask: bool) -> str:
        return str(self._known.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))


def _template(fields: dict[str, Any], tokens: list[str]) -> Any:
    """Make a function of the chat template: messages and whether to ask. Sandboxed, since the template comes with the weights."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source = fields.get("tokenizer.chat_template")
    named = {name: tokens[fields[f"tokenizer.ggml.{name}_token_id"]] for name in ("bos", "eos") if _has(fields, name)}
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source or "")
    marks = {f"{name}_token": text for name, text in named.items()}

    def rendered(messages: list[dict[str, Any]], ask: bool) -> str:
        if source is None:
            raise FinetuneError("the model has no chat template; train on completions (finetune.data.format=completion)")
        return template.render(messages=messages, add_generation_prompt=ask, **marks)

    return rendered


def _has(fields: dict[str, Any], name: str) -> bool:
    return f"tokenizer.ggml.{name}_token_id" in fields


def _from_gguf(file: GGUF) -> Loaded:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    architecture = file.fields.get("general.architecture")
    if architecture != "llama":
        raise FinetuneError(f"{file.path} has the architecture {architecture}; only llama can be trained from a GGUF file")
    settings = _config(file)
    config, heads, key_heads = LlamaConfig(**settings), settings["num_attention_heads"], settings["num_key_value_heads"]
    with torch.device("meta"):  # no random weights are drawn, only to be overwritten
        model = LlamaForCausalLM(config)
    model.load_state_dict(_state(file, heads, key_heads), strict=False, assign=True)
    model.tie_weights()
    model.model.rotary_emb = LlamaRotaryEmbedding(config)  # it has no weights, so it was left on the meta device
    return Loaded(model, _GGUFTokenizer(file), heads, key_heads)


def _config(file: GGUF) -> dict[str, Any]:
    fields = file.fields
    return {
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields.get("llama.attention.head_count_kv", fields["llama.attention.head_count"]),
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "max_position_embeddings": fields["llama.context_length"],
        "rope_parameters": {"rope_type": "default", "rope_theta": fields.get("llama.rope.freq_base", 10_000.0)},
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
    }


def _state(file: GGUF, heads: int, key_heads: int) -> dict[str, torch.Tensor]:
    """Return the weights by transformers' names."""
    import torch

    def tensor(name: str) -> torch.Tensor:
        weight = file.floats(name)
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            weight = half_order(weight, heads if name.endswith("attn_q.weight") else key_heads)
        return torch.from_numpy(weight.copy())

    names = names_of(file.fields["llama.block_count"], tied="output.weight" not in file.tensors)
    if unknown := sorted(file.tensors.keys() - {f"{name}.weight" for name in names}):
        raise FinetuneError(
            f"{file.path} has {unknown[0]}, which the trainer does not support: the trained model would not be the one served"
        )
    return {f"{ours}.weight": tensor(f"{theirs}.weight") for theirs, ours in names.items()}


def _from_folder(folder: Path) -> Loaded:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError) as error:
        raise FinetuneError(f"{folder} does not hold a model that can be loaded: {str(error).splitlines()[0]}") from None
    config = model.config
    if config.model_type != "llama":
        raise FinetuneError(f"{folder} has the architecture {config.model_type}; only llama can be trained and served here")
    return Loaded(model, _FolderTokenizer(folder), config.num_attention_heads, config.num_key_value_heads)
