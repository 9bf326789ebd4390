"""Separate connection arguments from request arguments, and make a `Connection` of them."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runner.lm.streaming import streams, total_s
from runner.secrets import names_a_secret, remember
from runner.types import Connection

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTION_KEYS = frozenset(
    {"api_base", "base_url", "api_key", "headers", "extra_headers", "timeout", "stream", "silence", "api_body"}
)
"""Connection arguments with fixed names; `is_connection` recognises the others by a pattern."""
_CONNECTION = re.compile(r"^(?:api|aws|azure|vertex|watsonx)_|(?:_|^)(?:token|secret|password|credentials)$|access_key")


@functools.lru_cache(maxsize=1024)
def is_connection(key: str) -> bool:
    """Return whether an argument is about the connection or its credentials, and so not part of the request."""
    return key in CONNECTION_KEYS or _CONNECTION.search(key) is not None


@functools.lru_cache(maxsize=64)
def normalise_url(url: str | None) -> str | None:
    """Return an address in one spelling: lower-case host, no default port, user, query or trailing slash."""
    if not url:
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    default = {"http": 80, "https": 443}.get(parts.scheme.lower())
    port = f":{parts.port}" if parts.port and parts.port != default else ""
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}{port}{parts.path.rstrip('/')}"


def api_base(model: str, kwargs: Mapping[str, Any]) -> str | None:
    """Return the base URL: the caller's, else for OpenAI's models the one in OpenAI's environment variables."""
    given = kwargs.get("api_base") or kwargs.get("base_url")
    if given is None and model.partition("/")[0] in ("openai", model):
        given = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
    return str(given) if given else None


def connection_of(model: str, kwargs: Mapping[str, Any]) -> Connection:
    """Return how to reach a model with these arguments of an LM. Secrets among them are registered, so that none is shown."""
    headers = kwargs.get("headers") or kwargs.get("extra_headers") or {}
    extra = {name: value for name, value in kwargs.items() if is_connection(name) and name not in CONNECTION_KEYS}
    for name, value in {"api_key": kwargs.get("api_key"), **headers, **extra}.items():
        if isinstance(value, str) and names_a_secret(name):
            remember(value.rpartition(" ")[2])  # of "Bearer KEY", the key
    address = api_base(model, kwargs)
    own_server = address is not None and model.partition("/")[0] in ("openai", model)
    streamed = streams(model, kwargs, own_server=own_server)
    timeout_s = float(kwargs["timeout"]) if kwargs.get("timeout") is not None else None
    if streamed and timeout_s is not None:
        timeout_s = total_s(timeout_s, model, kwargs, own_server=own_server)
    silence = {"silence_s": float(kwargs["silence"])} if kwargs.get("silence") is not None else {}
    return Connection(
        api_base=address,
        api_key=kwargs.get("api_key"),
        headers=headers,
        timeout_s=timeout_s,
        stream=streamed,
        **silence,
        body=kwargs.get("api_body") or {},
        extra=extra,
    )
