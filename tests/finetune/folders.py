"""A GGUF file's model as a folder in the form of Hugging Face, saved by transformers itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerFast

from runner.finetune.jobs.spec import Base
from runner.finetune.trainers.local.base import load
from runner.finetune.trainers.local.gguf import GGUF

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_CONTROL = 3
"""GGUF's type of a token that is a mark of the chat template."""


def save(weights: Path, folder: Path, dtype: torch.dtype) -> Path:
    """Write the folder."""
    loaded, fields = load(Base("x", "x", gguf=str(weights))), GGUF(weights).fields
    loaded.model.to(dtype).save_pretrained(folder)
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    PreTrainedTokenizerFast(
        tokenizer_object=loaded.tokenizer._bpe,
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[fields["tokenizer.ggml.eos_token_id"]],
        extra_special_tokens=[token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL],
        chat_template=fields["tokenizer.chat_template"],
    ).save_pretrained(folder)
    return folder
