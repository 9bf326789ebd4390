"""What a caller passes to an LM, checked, and sorted into what changes the answer and what is about the connection."""

from __future__ import annotations

import functools
import math
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runner.errors import ConfigError
from runner.secrets import names_a_secret, remember
from runner.types import Connection, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.types import Message, Request, Response

MIN_REASONING_TOKENS = 16_000
"""The least ``max_tokens`` of a reasoning model (dspy 3): less is spent on thinking alone."""

_REASONING = re.compile(
    r"(?:ft:)?(?:o[134](?:-(?:mini|nano|pro|preview|deep-research))*(?:-\d{4}-\d{2}-\d{2})?|gpt-5(?:\.\d+)*(?!-chat)(?:-[^:]*)?)(?::.*)?"
)
_ROLES = frozenset({"system", "user", "assistant", "tool", "developer", "function"})
CONNECTION_KEYS = frozenset({"api_base", "base_url", "api_key", "headers", "extra_headers", "timeout"})
"""Arguments about the connection that have names of their own; `is_connection` knows the others by how they look."""
_OURS = frozenset({"cache", "cache_in_memory", "rollout_id", "num_retries"})
_SECRET = re.compile(r"api_key|headers$|token$|secret|password|credential|access_key|authorization", re.IGNORECASE)
_CONNECTION = re.compile(r"^(?:api|aws|azure|vertex|watsonx)_|(?:_|^)(?:token|secret|password|credentials)$|access_key")


@functools.lru_cache(maxsize=64)
def is_reasoning(model: str) -> bool:
    """Whether `model` is of OpenAI's reasoning families o1, o3, o4 and gpt-5, whose requests have a form of their own."""
    return _REASONING.fullmatch(model.rpartition("/")[2].lower()) is not None


def estimate(request: Request) -> Usage:
    """A guess of the tokens of a request: of its prompt by the length of its text, and ``max_tokens`` for each answer.

    Four characters of English a token (the questions of GSM8K have 4.07), about one token a character of Chinese or Korean.
    """
    characters, size, turns = _length(request)
    asked = characters // 4 + (size - characters) * 3 // 8 + 4 * turns + 4
    answered = _longest(request, None) or 0
    return Usage(asked, answered, asked + answered)


def most(request: Request, longest: int | None = None) -> Usage | None:
    """The tokens that a request may use at the most: no token of text stands for less than a byte of it.

    Args:
        request: what is sent.
        longest: tokens of the longest answer the model gives, for a request that sets no limit.

    Returns:
        None when nobody knows: there is no limit to the answer.
    """
    answered = _longest(request, longest)
    if answered is None:
        return None
    _, size, turns = _length(request)
    asked = size + 8 * turns + 64  # around the text stand the marks of the chat template, and a system message of its own
    return Usage(asked, answered, asked + answered)


def limit_of(request: Request) -> int | None:
    """The most tokens that an answer to `request` may have; None when it sets no limit."""
    limit: int | None = request.params.get("max_tokens") or request.params.get("max_completion_tokens")
    return limit


def _longest(request: Request, otherwise: int | None) -> int | None:
    """Tokens of all answers to a request at the most."""
    params = request.params
    limit = limit_of(request) or otherwise
    return None if limit is None else int(limit) * max(int(params.get("n") or 1), int(params.get("best_of") or 1))


def _length(request: Request) -> tuple[int, int, int]:
    """Of what is sent: characters, bytes in UTF-8, and how many messages."""
    messages = request.messages or ()
    said = [message.get(part) for message in messages for part in ("content", "tool_calls")]
    said += [request.prompt, *(request.params.get(name) for name in ("tools", "functions", "response_format"))]
    texts = [part if isinstance(part, str) else str(part) for part in said if part]
    size = sum(len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in texts)
    return sum(map(len, texts)), size, len(messages)


@functools.lru_cache(maxsize=64)
def normalise_url(url: str | None) -> str | None:
    """One spelling of an address: lower-case host, no default port, user, query or trailing slash."""
    if not url:
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    default = {"http": 80, "https": 443}.get(parts.scheme.lower())
    port = f":{parts.port}" if parts.port and parts.port != default else ""
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}{port}{parts.path.rstrip('/')}"


def api_base(model: str, kwargs: Mapping[str, Any]) -> str | None:
    """The address that is asked: the caller's, else for OpenAI's models the one that OpenAI's own variables name."""
    given = kwargs.get("api_base") or kwargs.get("base_url")
    if given is None and model.partition("/")[0] in ("openai", model):
        given = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
    return str(given) if given else None


def as_text(messages: Sequence[Message]) -> str:
    """A conversation as one prompt to continue, laid out as dspy 2.6 does. Raises ConfigError for what is no text."""
    texts = [message.get("content") for message in messages]
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(f"messages[{index}]: a text model takes text, not {text!r:.80}")
    return "\n\n".join([*map(str, texts), "BEGIN RESPONSE:"])


def outputs_of(response: Response, *, wants_logprobs: bool) -> list[Any]:
    """The outputs of a call as dspy 2.6 gives them: texts, or dicts where there is more than text."""
    choices = response.choices
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
    """Refuse a model or a model type that cannot be meant. Raises ConfigError."""
    if not model or not isinstance(model, str) or model.endswith("/"):
        raise ConfigError(f"model {model!r}: write provider/name, for example openai/gpt-4o-mini")
    if model_type not in ("chat", "text", "responses"):
        raise ConfigError(f"model_type {model_type!r}: allowed are chat, text, responses")


def check_reasoning(model: str, temperature: float | None, max_tokens: int | None) -> None:
    """Refuse what a reasoning model does not take. Raises ConfigError."""
    if temperature not in (None, 1.0) or (max_tokens is not None and max_tokens < MIN_REASONING_TOKENS):
        raise ConfigError(
            f"{model} is a reasoning model: it takes temperature 1.0 or none (got {temperature}), and max_tokens of "
            f"{MIN_REASONING_TOKENS} or more, or none (got {max_tokens}); for example sampling.temperature=null "
            f"sampling.max_tokens={MIN_REASONING_TOKENS}"
        )


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse a malformed conversation. Raises ConfigError."""
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or "role" not in message:
            raise ConfigError(f"messages[{index}]: a message is a dict with role and content, not {message!r:.80}")
        if message["role"] not in _ROLES:
            raise ConfigError(f"messages[{index}]: there is no role {message['role']!r}; allowed: {', '.join(sorted(_ROLES))}")
        if not isinstance(message.get("content"), str | list) and not {"tool_calls", "function_call"} & message.keys():
            raise ConfigError(f"messages[{index}]: there is no content: {message!r:.80}")


def check_params(params: Mapping[str, Any]) -> None:
    """Refuse what some servers accept silently and answer nonsense to. Raises ConfigError."""
    temperature, limit = params.get("temperature"), params.get("max_tokens")
    if temperature is not None and (
        isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < math.inf
    ):
        raise ConfigError(f"temperature must be a number from 0 up, not {temperature!r}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"max_tokens must be a whole number from 1 up, not {limit!r}")


@functools.lru_cache(maxsize=1024)
def is_connection(key: str) -> bool:
    """Whether an argument is about the connection (or opens it), and so no part of the request."""
    return key in CONNECTION_KEYS or _CONNECTION.search(key) is not None


@functools.lru_cache(maxsize=1024)
def is_sent(key: str) -> bool:
    """Whether an argument is part of the request: not about the connection, and not about what we do with the call."""
    return key not in _OURS and not is_connection(key)


def without_secrets(state: Mapping[str, Any]) -> dict[str, Any]:
    """`state` without keys, tokens and headers, at any depth of dicts."""
    return {
        name: without_secrets(value) if isinstance(value, dict) else value
        for name, value in state.items()
        if not _SECRET.search(name)
    }


def as_data(value: Any) -> Any:
    """A request argument as JSON data; a pydantic class as ``response_format`` becomes its JSON schema."""
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        schema = {"name": value.__name__, "schema": value.model_json_schema(), "strict": True}
        return {"type": "json_schema", "json_schema": schema}
    return value


def connection_of(model: str, kwargs: Mapping[str, Any]) -> Connection:
    """How a model is reached by these arguments of an LM; the secrets among them are remembered, so that none is ever shown."""
    headers = kwargs.get("headers") or kwargs.get("extra_headers") or {}
    extra = {name: value for name, value in kwargs.items() if is_connection(name) and name not in CONNECTION_KEYS}
    for name, value in {"api_key": kwargs.get("api_key"), **headers, **extra}.items():
        if isinstance(value, str) and names_a_secret(name):
            remember(value.rpartition(" ")[2])  # of "Bearer KEY", the key
    timeout = kwargs.get("timeout")
    return Connection(
        api_base=api_base(model, kwargs),
        api_key=kwargs.get("api_key"),
        headers=headers,
        timeout_s=float(timeout) if timeout is not None else None,
        extra=extra,
    )
