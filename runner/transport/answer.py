"""Read a whole body of OpenAI's wire format, of chat and text completions. Both transports read with this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.transport import usage
from runner.transport.base import not_an_answer
from runner.transport.choices import AnswerChoice, choice_of, created_at, mend, refuse_error
from runner.types import Response, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.types import Connection, Request


class _PromptDetails(msgspec.Struct, forbid_unknown_fields=True):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, forbid_unknown_fields=True):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class _Tokens(msgspec.Struct, forbid_unknown_fields=True):
    """OpenAI's form, which most servers write. Any other form is read by the tables of `usage`, which takes longer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class Answer(msgspec.Struct):
    """A whole answer, as it is decoded or put together."""

    choices: list[AnswerChoice]
    id: str | int | None = None
    model: str | None = None
    created: int | float | str | None = None
    system_fingerprint: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: Any = None


_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder(Answer, strict=False).decode
_decode_tokens = msgspec.json.Decoder(_Tokens).decode


def read(data: bytes, request: Request, connection: Connection, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer in a body with status 200, of chat or text completions. `headers` may name its cost. Raises LMError."""
    try:
        answer = _decoded(data)
    except _UNREADABLE as error:
        why = f"{error}: {data[:200].decode(errors='replace')}" if data.strip() else "it is empty"
        raise not_an_answer(data, why, request, connection) from None
    response = response_of(answer, request, connection, headers)
    if not response.choices:
        raise not_an_answer(data, "it has no choices", request, connection)
    return response


def response_of(
    answer: Answer,
    request: Request,
    connection: Connection,
    headers: Mapping[str, str] | None = None,
    first_token_s: float | None = None,
) -> Response:
    """Return an answer in our form. `headers` may name its cost. Raises LMError."""
    choices = [choice_of(choice, request, connection) for choice in answer.choices]
    if answer.error:
        refuse_error(answer.error, request, connection)
    tokens, more = _usage(answer.usage)
    cost_usd, cost_from = usage.named_cost(more, headers) or (None, None)
    return Response(
        id=str(answer.id) if isinstance(answer.id, int) else answer.id,
        model=answer.model,
        choices=choices,
        usage=tokens,
        system_fingerprint=answer.system_fingerprint,
        created=created_at(answer.created),
        cost_usd=cost_usd,
        cost_from=cost_from,
        first_token_s=first_token_s,
    )


def _decoded(data: bytes) -> Answer:
    try:
        return _decode(data)
    except _UNREADABLE:
        if (mended := mend(data)) is None:
            raise
        return _decode(mended)


def _usage(data: msgspec.Raw) -> tuple[Usage | None, Mapping[str, Any] | None]:
    """Return the tokens, and the whole ``usage`` if it says more than tokens."""
    try:
        tokens = _decode_tokens(data)
    except _UNREADABLE:
        plain = _object(data)
        return (usage.read(plain) if plain else None), plain
    if tokens.prompt_tokens_details is None and tokens.completion_tokens_details is None:
        return usage.counted(tokens.prompt_tokens, tokens.completion_tokens, tokens.total_tokens), None
    prompt, completion = tokens.prompt_tokens_details or _PromptDetails(), tokens.completion_tokens_details
    counted = usage.counted(
        tokens.prompt_tokens,
        tokens.completion_tokens,
        tokens.total_tokens,
        cached=prompt.cached_tokens or 0,
        writes=prompt.cache_write_tokens or 0,
        reasoning=(completion.reasoning_tokens if completion else 0) or 0,
    )
    return counted, None


def _object(data: msgspec.Raw) -> dict[str, Any] | None:
    try:
        plain = msgspec.json.decode(data)
    except _UNREADABLE:
        return None
    return plain if isinstance(plain, dict) else None
