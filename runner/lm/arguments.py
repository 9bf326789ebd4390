"""Check the arguments of an LM, and convert them and its answers to the forms of requests and of dspy."""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ConfigError
from runner.lm.connection import is_connection
from runner.types import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.types import Response

_ROLES = frozenset({"system", "user", "assistant", "tool", "developer", "function"})
_OURS = frozenset({"cache", "cache_in_memory", "rollout_id", "num_retries"})
_SECRET = re.compile(r"api_key|headers$|token$|secret|password|credential|access_key|authorization", re.IGNORECASE)


class Inputs(msgspec.Struct, frozen=True):
    """The arguments of one call, as the caller passed them."""

    prompt: str | None
    messages: list[Message] | None
    kwargs: dict[str, Any]

    def shown(self) -> dict[str, Any]:
        """Return the keyword arguments that may be shown: those that are not about the connection."""
        return {name: value for name, value in self.kwargs.items() if not is_connection(name)} if self.kwargs else {}


def as_text(messages: Sequence[Message]) -> str:
    """Return a conversation as one prompt to continue, in the layout of dspy 2.6. Raises ConfigError if a part is not text."""
    texts = [message.get("content") for message in messages]
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(f"messages[{index}]: a text model takes text, not {text!r:.80}")
    return "\n\n".join([*map(str, texts), "BEGIN RESPONSE:"])


def outputs_of(response: Response, *, wants_logprobs: bool) -> list[Any]:
    """Return the outputs of a call as dspy 2.6 does: texts, or dicts if there is more than text."""
    choices = response.choices
    if len(choices) == 1 and not wants_logprobs and not choices[0].tool_calls:
        return [choices[0].text]
    if not wants_logprobs and not any(choice.tool_calls for choice in choices):
        return [choice.text for choice in choices]
    outputs: list[dict[str, Any]] = []
    for choice in choices:
        output: dict[str, Any] = {"text": choice.text}
        if wants_logprobs:
            output["logprobs"] = choice.logprobs
        if choice.tool_calls:
            output["tool_calls"] = choice.tool_calls
        outputs.append(output)
    return outputs


def check_model(model: str, model_type: str) -> None:
    """Raise ConfigError for an invalid model name or model type."""
    if not model or not isinstance(model, str) or model.endswith("/"):
        raise ConfigError(f"model {model!r}: write provider/name, for example openai/gpt-5.4-mini")
    if model_type not in ("chat", "text", "responses"):
        raise ConfigError(f"model_type {model_type!r}: allowed are chat, text, responses")


def check_messages(messages: Sequence[Message]) -> None:
    """Raise ConfigError for a malformed conversation."""
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or "role" not in message:
            raise ConfigError(f"messages[{index}]: a message is a dict with role and content, not {message!r:.80}")
        if message["role"] not in _ROLES:
            raise ConfigError(f"messages[{index}]: unknown role {message['role']!r}; allowed: {', '.join(sorted(_ROLES))}")
        if not isinstance(message.get("content"), str | list) and not {"tool_calls", "function_call"} & message.keys():
            raise ConfigError(f"messages[{index}]: content is missing: {message!r:.80}")


def check_params(params: Mapping[str, Any]) -> None:
    """Raise ConfigError for values that some servers accept silently and answer with nonsense."""
    temperature, limit = params.get("temperature"), params.get("max_tokens")
    if temperature is not None and (
        isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < math.inf
    ):
        raise ConfigError(f"temperature must be a number of at least 0, not {temperature!r}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"max_tokens must be a whole number of at least 1, not {limit!r}")


@functools.lru_cache(maxsize=1024)
def is_sent(key: str) -> bool:
    """Return whether an argument is part of the request, and not about the connection, the cache or retries."""
    return key not in _OURS and not is_connection(key)


def without_secrets(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return `state` without keys, tokens and headers, in nested dicts too."""
    return {
        name: without_secrets(value) if isinstance(value, dict) else value
        for name, value in state.items()
        if not _SECRET.search(name)
    }


def as_data(value: Any) -> Any:
    """Return a request argument as JSON data; a pydantic class (``response_format``) becomes its JSON schema."""
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        schema = {"name": value.__name__, "schema": value.model_json_schema(), "strict": True}
        return {"type": "json_schema", "json_schema": schema}
    return value
