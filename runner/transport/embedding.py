"""Read a vector: the answer of OpenAI's ``/embeddings`` for one text, kept as the text of an answer, the JSON of a list."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import msgspec

from runner.transport import usage
from runner.transport.base import not_an_answer
from runner.types import Choice, Response, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.types import Connection, Request

_FAKE_SIZE = 64


class _Item(msgspec.Struct):
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Item]
    model: str | None = None
    usage: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def read_vector(data: bytes, request: Request, connection: Connection, headers: Mapping[str, str] | None = None) -> Response:
    """Return the vector in a body with status 200. `headers` may name its cost. Raises LMError."""
    try:
        answer = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise not_an_answer(data, str(error), request, connection) from None
    if len(answer.data) != 1 or not answer.data[0].embedding:
        raise not_an_answer(data, f"it has {len(answer.data)} vectors for one text", request, connection)
    cost_usd, cost_from = usage.named_cost(answer.usage, headers) or (None, None)
    return Response(
        choices=[Choice(msgspec.json.encode(answer.data[0].embedding).decode(), "stop")],
        model=answer.model,
        usage=usage.read(answer.usage) if answer.usage else None,
        cost_usd=cost_usd,
        cost_from=cost_from,
    )


def fake_vector(text: str) -> tuple[str, Usage]:
    """Return a vector whose likeness to others is that of the words: each word adds to one of its numbers."""
    vector = [0.0] * _FAKE_SIZE
    words = text.lower().split()
    for word in words:
        vector[hashlib.sha256(word.encode()).digest()[0] % _FAKE_SIZE] += 1.0
    length = math.sqrt(sum(number * number for number in vector)) or 1.0
    return msgspec.json.encode([number / length for number in vector]).decode(), Usage(len(words), 0, len(words))
