"""Adapters: turn a row into a prompt, and the model's text into a value."""

from runner.adapters.chat import ChatAdapter
from runner.adapters.conversation import ConversationAdapter, chat_adapter, conversation_of
from runner.adapters.json import JsonAdapter
from runner.adapters.prompt import Adapter, Formatted, MessageTemplate, ParseError, PartTemplate, Prompt, Repaired
from runner.adapters.templates import Template
from runner.adapters.text import TextAdapter

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
