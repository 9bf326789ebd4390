"""Answer requests of programs in OpenAI's formats: refuse what cannot be served, and hand the rest to whoever completes it."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from runner.errors import OstinatoError
from runner.lm import wire
from runner.network.serving import Answer
from runner.secrets import redact
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from runner.network.serving import Incoming
    from runner.types import Response

Complete: TypeAlias = "Callable[[wire.Asked], Awaitable[Response]]"
"""Answers a request that has been read. It raises OstinatoError."""

MODELS = "/v1/models"

_FINAL = (("x-should-retry", "false"),)
"""OpenAI's clients ask again after 429 and 5xx; what can be asked again, we have asked again."""

_encode = msgspec.json.Encoder().encode


def has_key(incoming: Incoming, key: str) -> bool:
    """Return whether a client has sent this key."""
    return hmac.compare_digest(incoming.headers.get("authorization", "").encode(), f"Bearer {key}".encode())


async def respond(incoming: Incoming, path: str, model: str, names: Collection[str], complete: Complete) -> Answer:
    """Answer a request of a client that has the key, whatever it is.

    Args:
        incoming: the request.
        path: what it asks for, from ``/v1`` on.
        model: the model that answers.
        names: the names that clients may call it by.
        complete: answers what has been read.
    """
    if (refusal := _refusal(incoming, path)) is not None:
        return refusal
    if path == MODELS:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "ostinato"} for name in sorted(names)]
        return Answer(200, _encode({"object": "list", "data": listed}))
    try:
        asked = wire.read(wire.PATHS[path], incoming.body)
        if asked.model not in names:
            return _other_model(asked.model, model, names)
        response = await complete(asked)
    except OstinatoError as error:
        status, body = wire.refusal(error)
        return Answer(status, body, more=_FINAL)
    except Exception as error:  # noqa: BLE001 - boundary: a program sends anything, and waits for an answer
        told = redact(f"the request cannot be answered ({type(error).__name__}: {error})")
        return Answer(500, wire.error(told, kind="server_error"), more=_FINAL)
    return Answer(200, wire.answer(asked, response), "text/event-stream" if asked.stream else "application/json")


def _refusal(incoming: Incoming, path: str) -> Answer | None:
    """Return the answer to a request for what is not served; None if it is."""
    if path != MODELS and path not in wire.PATHS:
        return refused(404, f"{path}: the proxy serves {', '.join(wire.PATHS)} and {MODELS}", "not_found")
    wanted = "GET" if path == MODELS else "POST"
    return None if incoming.method == wanted else refused(405, f"{path} takes {wanted}", "method_not_allowed")


def refused(status: int, message: str, code: str) -> Answer:
    """Return a refusal, as OpenAI writes it."""
    return Answer(status, wire.error(message, kind="invalid_request_error", code=code), more=_FINAL)


def _other_model(name: str, model: str, names: Collection[str]) -> Answer:
    hint = suggest(name, names) or ";"
    told = f"the model {name!r} is not served here{hint} this proxy serves {model}; start another one for another model"
    return refused(404, told, "model_not_found")
