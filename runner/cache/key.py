"""The cache key: SHA-256 over a canonical encoding of everything that changes the answer."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from runner.errors import ConfigError

if TYPE_CHECKING:
    from runner.types import Request

KEY_VERSION = 1
"""Raised when the encoding changes; entries of another version are never found, and age out."""

_encoder = msgspec.json.Encoder(order="deterministic")


def request_key(request: Request) -> str:
    """The key of `request`: 64 hexadecimal digits, the same on every machine and for every spelling of the same values.

    The encoding is JSON with sorted keys; whole floats are written as integers, so that ``temperature: 0`` and ``0.0`` are one
    request. Keys, timeouts and headers are not part of a Request. Golden keys stand in tests/unit/test_cache.py.

    Raises:
        ConfigError: a parameter is not JSON data.
    """
    try:
        encoded = _encoder.encode((KEY_VERSION, _canonical(request.params), _identity(request)))
    except (TypeError, UnicodeEncodeError) as error:
        raise ConfigError(f"a request to {request.model} is not JSON data: {error}") from None
    return hashlib.sha256(encoded).hexdigest()


def _identity(request: Request) -> tuple[object, ...]:
    return (request.model, request.endpoint, request.model_type, request.messages, request.prompt, request.rollout or 0)


def _canonical(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value
