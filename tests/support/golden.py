"""A request whose key never moves, and an answer to it."""

from runner.types import Choice, Request, Response, Usage

ASKED = [{"role": "user", "content": "What is 2 + 2?"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "number"}}}}}
REQUEST = Request(model="openai/gpt-4o-mini", messages=ASKED, params={"temperature": 0.0, "max_tokens": 1000})
KEY = "691b67a0d1658a132a0dbf8fb03e367a5fce85c7e3b87c4ff447d344e7a7b6c3"
ANSWER = Response(
    choices=[Choice("4", "stop", {"content": [{"token": "4", "logprob": -0.1}]}, reasoning="2 + 2")],
    model="gpt-4o-mini-2024-07-18",
    id="x",
    usage=Usage(12, 1, 13, 4, 0),
    system_fingerprint="fp",
    created=1_700_000_000,
)
