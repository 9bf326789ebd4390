"""Adapters: turn a row into a prompt, and the model's text into a value."""

from runner.adapters.chat import ChatAdapter
from runner.adapters.json import JsonAdapter
from runner.adapters.prompt import Adapter, Formatted, ParseError, Prompt, Repaired
from runner.adapters.templates import Template
from runner.adapters.text import TextAdapter

__all__ = ["Adapter", "ChatAdapter", "Formatted", "JsonAdapter", "ParseError", "Prompt", "Repaired", "Template", "TextAdapter"]
