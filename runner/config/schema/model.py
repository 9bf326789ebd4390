"""Declare `model`: the kinds of models, their prices and how their answers are read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from runner.config.schema.base import Config, Dollars, Fraction, Kind, Positive, Text

Thinking: TypeAlias = Literal["split", "keep"]
TRANSPORTS = ("auto", "direct", "litellm")
Transport: TypeAlias = Annotated[str, Meta(min_length=1, examples=list(TRANSPORTS))]
"""The name of a transport: one of these, or that of a package (entry point group ``ostinato.transports``)."""

Unsupported: TypeAlias = Literal["warn", "drop", "error"]


class LocalModel(Kind, frozen=True, kw_only=True, tag="local"):
    """Use a model that is served on this machine during the run, or by `ostinato launch`."""

    name: Text = "smollm2"
    backend: Literal["llamacpp", "vllm", "sglang"] = "llamacpp"
    model_type: Literal["chat", "text"] = "chat"
    thinking: Thinking = "split"
    params: dict[str, Any] = msgspec.field(default_factory=lambda: {"seed": 0})


class Price(Config, frozen=True, kw_only=True):
    """Give the price of a model in US dollars per million tokens. Without `prompt` and `completion` it is not given."""

    prompt: Dollars | None = None
    completion: Dollars | None = None
    cached_prompt: Dollars | None = None
    cache_write: Dollars | None = None
    reasoning: Dollars | None = None

    def __post_init__(self) -> None:
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not None]
        if given and (self.prompt is None or self.completion is None):
            raise ValueError(f"{given[0]} is given alone; a price needs both prompt and completion")


class LiteLLMModel(Kind, frozen=True, kw_only=True, tag="litellm"):
    """Use any model that litellm reaches, as ``provider/name``."""

    name: Text = "openai/gpt-5.4-mini"
    api_base: str | None = None
    api_key_env: str | None = None
    model_type: Literal["chat", "text", "responses"] = "chat"
    headers: dict[str, str] = {}
    transport: Transport = "auto"
    price: Price = Price()
    thinking: Thinking = "split"
    unsupported: Unsupported = "warn"
    params: dict[str, Any] = {}


class ServerModel(Kind, frozen=True, kw_only=True, tag="server"):
    """Use a model behind any endpoint with OpenAI's wire format. `software`, if given, is only for remarks on what it ignores."""

    name: Text = "default"
    api_base: Text = "http://127.0.0.1:8000/v1"
    software: Literal["llamacpp", "llama-cpp-python", "transformers", "vllm", "sglang", "ollama"] | None = None
    api_key_env: str | None = None
    model_type: Literal["chat", "text", "responses"] = "chat"
    headers: dict[str, str] = {}
    transport: Transport = "auto"
    price: Price = Price()
    thinking: Thinking = "split"
    unsupported: Unsupported = "warn"
    params: dict[str, Any] = {}


FakeFailure: TypeAlias = Literal[
    "rate_limit", "timeout", "server", "transport", "malformed", "authentication", "quota", "bad_request", "context_window",
    "content_filter", "not_found", "permission_denied",
]  # fmt: skip


class FakeModel(Kind, frozen=True, kw_only=True, tag="fake"):
    """Use a deterministic stand-in for a model, for tests and trial runs."""

    name: Text = "fake"
    model_type: Literal["chat", "text"] = "chat"
    reply: str | None = None
    choices: list[str] = []
    latency_s: Annotated[float, Meta(ge=0)] = 0.0
    fail_rate: Fraction = 0.0
    fail_with: FakeFailure = "server"
    fail_attempts: Positive | None = None
    thinking: Thinking = "split"
    params: dict[str, Any] = {}


Model: TypeAlias = LocalModel | LiteLLMModel | ServerModel | FakeModel
