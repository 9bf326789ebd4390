"""What the contract of the transports is tested with: LMs, tools, and which of litellm's own warnings are let pass."""

import pytest

from runner.lm.lm import LM

# litellm's own: pydantic complains of its types, and text completions leave each call's client to the garbage collector
QUIET = [
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore:Items? '.*' on TypedDict class"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KEY = "key-of-the-house-0123456789"
TOOLS = [
    {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}}}
]
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"x": 2}'}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object", "properties": {}}}}


def served_lm(server, model="openai/any", **arguments):
    settings = {"api_base": server.url, "api_key": KEY, "cache": False, "num_retries": 0, "timeout": 20, "stream": "never"}
    return LM(model, **settings | arguments)


def response_of(lm):
    return lm.history[-1]["response"]
