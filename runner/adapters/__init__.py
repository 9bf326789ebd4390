"""Adapters: turn a row into a prompt, and the model's text into a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.system.first_use import on_first_use

if TYPE_CHECKING:
    from runner.adapters.chat import ChatAdapter
    from runner.adapters.conversation import ConversationAdapter, chat_adapter, conversation_of
    from runner.adapters.json import JsonAdapter
    from runner.adapters.prompt import Adapter, Formatted, MessageTemplate, ParseError, PartTemplate, Prompt, Repaired
    from runner.adapters.templates import Template
    from runner.adapters.text import TextAdapter

_HOMES = {
    "Adapter": "prompt",
    "chat_adapter": "conversation",
    "ChatAdapter": "chat",
    "conversation_of": "conversation",
    "ConversationAdapter": "conversation",
    "Formatted": "prompt",
    "JsonAdapter": "json",
    "MessageTemplate": "prompt",
    "ParseError": "prompt",
    "PartTemplate": "prompt",
    "Prompt": "prompt",
    "Repaired": "prompt",
    "Template": "templates",
    "TextAdapter": "text",
}

__all__ = [
    "Adapter",
    "ChatAdapter",
    "ConversationAdapter",
    "Formatted",
    "JsonAdapter",
    "MessageTemplate",
    "ParseError",
    "PartTemplate",
    "Prompt",
    "Repaired",
    "Template",
    "TextAdapter",
    "chat_adapter",
    "conversation_of",
]

__getattr__ = on_first_use(__name__, _HOMES)
