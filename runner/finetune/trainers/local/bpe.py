"""Convert a byte-level BPE tokenizer from ``tokenizer.json`` to GGUF's keys, if llama.cpp is known to split text in the same way.

A tokenizer that splits text slightly differently makes the model's answers slightly worse, without any error. So every part of
the file is checked, and unknown parts are refused.
"""

from __future__ import annotations

from typing import Any

from runner.errors import FinetuneError
from runner.finetune.trainers.local.base import PRE_TOKENIZERS

_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5
"""GGUF's types of tokens."""

_UNKNOWN = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
"""Options of a BPE that llama.cpp does not support."""


def fields_of(tokenizer: dict[str, Any], settings: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Return the tokenizer in GGUF's keys, without the chat template.

    Args:
        tokenizer: ``tokenizer.json``.
        settings: ``tokenizer_config.json``.
        config: the model's ``config.json``.

    Raises:
        FinetuneError: llama.cpp splits text differently, or the tokenizer is not known.
    """
    model = tokenizer["model"]
    splits = _splits(tokenizer)
    if settings.get("add_bos_token") or settings.get("add_eos_token"):
        raise FinetuneError("its tokenizer adds tokens to every text")
    numbers = dict(model["vocab"])
    kinds = dict.fromkeys(numbers.values(), _NORMAL)
    for token in tokenizer.get("added_tokens", ()):
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise FinetuneError(f"its token {token['content']} swallows what is around it")
        numbers[token["content"]] = token["id"]
        kinds[token["id"]] = _CONTROL if token.get("special") else _USER
    tokens = [f"[PAD{number}]" for number in range(config["vocab_size"])]
    for token, number in numbers.items():
        if number >= len(tokens):
            raise FinetuneError(f"its token {token} has the number {number}, and there are {len(tokens)} embeddings")
        tokens[number] = token
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": splits,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [kinds.get(number, _UNUSED) for number in range(len(tokens))],
        "tokenizer.ggml.merges": [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.add_bos_token": False,
    }
    for ours, theirs in {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}.items():
        named = settings.get(f"{theirs}_token")
        named = named.get("content") if isinstance(named, dict) else named
        number = numbers.get(named, config.get(f"{theirs}_token_id"))
        if isinstance(number, int):
            fields[f"tokenizer.ggml.{ours}_token_id"] = number
    return fields


def _splits(tokenizer: dict[str, Any]) -> str:
    """Return GGUF's name of the pre-tokenizer. Raises FinetuneError if it is not known."""
    model = tokenizer["model"]
    odd = [name for name in _UNKNOWN if model.get(name)]
    if model["type"] != "BPE" or odd:
        raise _not_known("model", " with ".join([model["type"], *odd]))
    if tokenizer.get("normalizer"):
        raise _not_known("normalizer", tokenizer["normalizer"]["type"])
    if not _adds_nothing(tokenizer.get("post_processor")):
        raise _not_known("post_processor", f"{tokenizer['post_processor']['type']}, which adds tokens")
    before = tokenizer.get("pre_tokenizer") or {}
    steps = [_step(step) for step in before.get("pretokenizers", [before])]
    for name, digits in PRE_TOKENIZERS.items():
        if steps == [*(["digits"] if digits else []), "bytes"]:
            return name
    raise _not_known("pre_tokenizer", " and ".join(steps))


def _step(step: dict[str, Any]) -> str:
    """Name a pre-tokenizer's step: ``digits`` (single ones), ``bytes`` (GPT-2's words, as bytes), else its type."""
    match step:
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case {"type": "ByteLevel", "add_prefix_space": False} if step.get("use_regex", True):
            return "bytes"
        case _:
            return str(step.get("type"))


def _adds_nothing(processor: dict[str, Any] | None) -> bool:
    match processor:
        case None | {"type": "ByteLevel"}:
            return True
        case {"type": "TemplateProcessing", "special_tokens": added}:
            return not added
        case {"type": "Sequence", "processors": parts}:
            return all(map(_adds_nothing, parts))
        case _:
            return False


def _not_known(part: str, what: str) -> FinetuneError:
    return FinetuneError(f"its tokenizer is not known here ({' and '.join(PRE_TOKENIZERS)} are): its {part} is {what}")
