"""The model names that built-in providers own. Apart from the providers, so that no run imports one that it does not use."""

from __future__ import annotations

import re

LOCAL = "local/"
"""The prefix of models that are served on this machine."""

# Families, since a list of models would soon be stale. Open-weights models with such a name are served elsewhere.
_FAMILY = (
    r"(?:gpt-(?!oss|neo|j\b)[\w.-]+|chatgpt-[\w.-]+|o[1-9]\d*(?:-[\w.-]+)?|codex-[\w.-]+|text-[\w.-]+|(?:babbage|davinci)-\d+)"
)
_OPENAI = re.compile(rf"(?:(?:text-completion-)?openai/)?(?:{_FAMILY}|ft:{_FAMILY}:.+)")


def is_local(model: str) -> bool:
    """Return whether the model is named ``local/...``."""
    return model.startswith(LOCAL)


def is_openai(model: str) -> bool:
    """Return whether this is one of OpenAI's own models, fine-tuned (``ft:``) or not. The prefix ``openai/`` is optional.

    ``openai/`` before any other name means a server that speaks OpenAI's protocol.
    """
    return _OPENAI.fullmatch(model) is not None
