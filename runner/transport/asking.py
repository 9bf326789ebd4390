"""Choose the fields that ask for a streamed answer, and learn which servers refuse them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from runner.transport.base import STREAMING

if TYPE_CHECKING:
    from runner.errors import LMError
    from runner.types import Connection, Request

logger = logging.getLogger("ostinato")

_refused: dict[tuple[str | None, str], str] = {}
"""Fields that a server has refused for a model: ``stream_options`` or ``stream``. The key is its address and the model."""


_NONE: dict[str, Any] = {}
_FIELDS = {None: STREAMING, "stream_options": {"stream": True}, "stream": _NONE}


def stream_fields(request: Request, connection: Connection) -> dict[str, Any]:
    """Return the fields that ask for a streamed answer; none if it is not to be streamed, or the server has refused to.

    They are the same object each time: do not change it.
    """
    return _FIELDS[_refused.get((connection.api_base, request.model))] if connection.stream else _NONE


def learn(error: LMError, asked: dict[str, Any], request: Request, connection: Connection) -> bool:
    """Remember that a server refuses one of the fields that were sent. Return whether to send the request without it.

    OpenAI refuses ``stream`` for some models to organisations that are not verified; Mistral and older servers refuse
    ``stream_options``. A refusal costs nothing, and each field is refused once.
    """
    name = error.parameter
    if name is None or name not in asked:
        return False
    if _refused.get((connection.api_base, request.model)) != name:
        _refused[connection.api_base, request.model] = name
        without = "answers are not streamed" if name == "stream" else "streamed answers do not say what they have used"
        logger.warning("%s is refused for %s: %s", name, request.model, without)
    return True
