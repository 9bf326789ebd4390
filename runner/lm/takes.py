"""Refuse attachments that a model, or the way to it, does not take, before anything is sent: a dropped part is never noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runner.attachments import Kind, kind_of_part
from runner.cost import pricemap
from runner.errors import ConfigError
from runner.servers.listing import is_paid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.types import Message, ModelType

FACTS: dict[Kind, str] = {"image": "supports_vision", "audio": "supports_audio_input", "file": "supports_pdf_input"}
"""The fields of litellm's map that say what a model takes. A model of the map without the field does not take it."""
_NAMES: dict[Kind, str] = {"image": "images", "audio": "sounds", "file": "files"}
_OPENAI = frozenset({"openai", "local", "fake", "text-completion-openai"})
"""Prefixes whose requests are sent as they are, in OpenAI's form: whoever does not take a part refuses it aloud."""


class Dropped(NamedTuple):
    """A part that is lost in silence between us and a provider.

    Attributes:
        vendor: the provider, as litellm's map and prefixes name it.
        kind: what is lost.
        role: in the messages of this role; None: of any.
        version: of litellm, in which it was seen.
        source: how that is known.
    """

    vendor: str
    kind: Kind
    role: str | None
    version: str
    source: str


DROPPED = (
    Dropped("anthropic", "audio", None, "litellm 1.110.2", "requests on the wire, measured 2026-11-30"),
    Dropped("anthropic", "image", "system", "litellm 1.110.2", "requests on the wire, measured 2026-11-30"),
    Dropped("gemini", "image", "system", "litellm 1.110.2", "requests on the wire, measured 2026-11-30"),
)


def refuse_untaken(model: str, model_type: ModelType, api_base: str | None, messages: Sequence[Message]) -> None:
    """Raise ConfigError for a part of `messages` that the model or the way to it is known not to take.

    Args:
        model: ``provider/name``.
        model_type: the wire format.
        api_base: its address; that of a server of the user's own may serve anything under any name.
        messages: what is to be sent.
    """
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if (kind := kind_of_part(part)) is not None and (told := untaken(model, model_type, api_base, kind, message["role"])):
                raise ConfigError(told)


def untaken(model: str, model_type: ModelType, api_base: str | None, kind: Kind, role: str = "user") -> str | None:
    """Say why an attachment in a message of this role cannot be sent to a model; None if nothing speaks against it."""
    what, vendor = _NAMES[kind], model.partition("/")[0]
    if model_type == "text":
        return f"{model}: text completions take no {what}; use model.model_type=chat"
    if model_type == "responses" and kind == "audio":
        return f"{model}: OpenAI's responses API takes no {what}; use model.model_type=chat"
    facts = pricemap.entry(model) if not api_base or is_paid(api_base) else None
    vendors = {vendor, str((facts or {}).get("litellm_provider"))}
    for row in DROPPED:
        if row.vendor in vendors and row.kind == kind and row.role in (None, role):
            where = f" in {row.role} messages" if row.role else ""
            return f"{model}: {what}{where} would be dropped in silence ({row.version}); leave them out, or put them elsewhere"
    if facts is not None:
        return None if facts.get(FACTS[kind]) else f"{model} takes no {what} (litellm's map of models: no {FACTS[kind]})"
    if kind != "image" and vendor not in _OPENAI:
        return f"{model} is not in litellm's map of models, which drops {what} in silence for models that do not take them"
    return None
