"""OpenAI as a provider: its models are always up, so launch and kill do nothing."""

from __future__ import annotations

import re

from runner.providers.base import Provider

# Families, not a list of models, which would be stale in a month. Open-weights models that carry the name are served elsewhere.
_BASE = (
    r"(?:gpt-(?!oss|neo|j\b)[\w.-]+|chatgpt-[\w.-]+|o[1-9]\d*(?:-[\w.-]+)?|codex-[\w.-]+|text-[\w.-]+|(?:babbage|davinci)-\d+)"
)
_MODEL = re.compile(rf"(?:(?:text-completion-)?openai/)?(?:{_BASE}|ft:{_BASE}:.+)")


class OpenAIProvider(Provider):
    """The models that OpenAI serves itself. Fine-tuning over its API is not built yet."""

    @staticmethod
    def is_provider_model(model: str) -> bool:
        """Whether this is one of OpenAI's own models, ``ft:`` ones included; the prefix ``openai/`` is optional.

        ``openai/`` before any other name means a server that speaks OpenAI's protocol, which this provider does not own.
        """
        return _MODEL.fullmatch(model) is not None
