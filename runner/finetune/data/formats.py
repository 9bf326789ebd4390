"""The formats of training rows."""

from __future__ import annotations

from enum import StrEnum


class TrainDataFormat(StrEnum):
    """The form of a row of training data (the names are dspy's)."""

    CHAT = "chat"
    """``{"messages": [...]}``: the last message is the assistant's and is what is learned."""
    COMPLETION = "completion"
    """``{"prompt": "...", "completion": "..."}``."""
    PREFERENCE = "preference"
    """A prompt with a chosen and a rejected answer."""
    GRPO_CHAT = "grpo_chat"
    """``{"messages": [...], "completion": {...}, "reward": float}``, in groups that share their messages."""
