"""Compute the cache key: SHA-256 over a canonical encoding of everything that changes the answer."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ConfigError

if TYPE_CHECKING:
    from runner.types import Request

KEY_VERSION = 1
"""Increased when the encoding changes; entries of other versions are never found, and age out."""

_encoder = msgspec.json.Encoder(order="deterministic")


def encoded_params(params: dict[str, Any]) -> bytes:
    """Return the encoded parameters of a key, for callers with many requests that share them.

    Raises:
        ConfigError: a parameter is not JSON data.
    """
    try:
        return _encoder.encode(_canonical(params))
    except (TypeError, UnicodeEncodeError) as error:
        raise ConfigError(f"a request is not JSON data: {error}") from None


def request_key(request: Request, params: bytes | None = None) -> str:
    """Return the key of `request`: 64 hexadecimal digits, the same on every machine and for every spelling of the same values.

    The encoding is JSON with sorted keys; whole floats in parameters are written as integers, so that ``temperature: 0`` and
    ``0.0`` are one request. Keys, timeouts and headers are not part of a Request. Golden keys: tests/unit/test_cache_key.py.

    Args:
        request: the request.
        params: its `encoded_params`, if already known.

    Raises:
        ConfigError: a parameter is not JSON data.
    """
    try:
        known = params if params is not None else _encoder.encode(_canonical(request.params))
        encoded = b"[%d,%b,%b]" % (KEY_VERSION, known, _encoder.encode(_identity(request)))
    except (TypeError, UnicodeEncodeError) as error:
        raise ConfigError(f"a request to {request.model} is not JSON data: {error}") from None
    return hashlib.sha256(encoded).hexdigest()


def _identity(request: Request) -> tuple[object, ...]:
    return (request.model, request.endpoint, request.model_type, request.messages, request.prompt, request.rollout or 0)


_PLAIN = frozenset({str, int, bool, type(None)})


def _canonical(value: object) -> object:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value} is not a JSON number")
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {key: item if type(item) in _PLAIN else _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) in _PLAIN else _canonical(item) for item in value]
    return value
