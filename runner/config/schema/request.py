"""Declare `sampling`, `prompt` and `adapter`: what is asked, and in which form."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from runner.config.schema.base import Config, Count, Kind, Positive


class Sampling(Config, frozen=True, kw_only=True):
    """Hold sampling parameters. None: the parameter is not sent, so the provider's default applies."""

    temperature: Annotated[float, Meta(ge=0, le=5)] | None = 0.0
    max_tokens: Positive | None = 1000
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: list[str] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repeats: Positive = 1


class Example(Config, frozen=True, kw_only=True):
    """Show the model one example (shot) before the question. Its text is literal."""

    user: str
    assistant: str


class Prompt(Config, frozen=True, kw_only=True):
    """Say what the model is asked. `system` and `user` are templates: ``{{ column }}``."""

    system: str | None = None
    user: str | None = "{{ question }}"
    system_file: str | None = None
    user_file: str | None = None
    examples: list[Example] = []

    def __post_init__(self) -> None:
        if self.user_file is None and not self.user:
            raise ValueError("user is empty; say what to ask, for example prompt.user='{{ question }}'")
        if self.system is not None and self.system_file is not None:
            raise ValueError("system and system_file are both given; keep one")


class ChatAdapter(Kind, frozen=True, kw_only=True, tag="chat"):
    """Send the prompt as chat messages."""

    literal_tokens: bool | None = None


class TextAdapter(Kind, frozen=True, kw_only=True, tag="text"):
    """Send the prompt as one text to continue. The model needs ``model_type: text``."""


class JsonAdapter(Kind, frozen=True, kw_only=True, tag="json"):
    """Expect JSON that matches a schema. If an answer does not, the model is asked again, up to `retries` times."""

    schema: dict[str, Any] = {}
    retries: Count = 1
    send_schema: Literal["json_schema", "json_object", "none"] = "json_schema"
    repair: bool = False


Adapter: TypeAlias = ChatAdapter | TextAdapter | JsonAdapter
