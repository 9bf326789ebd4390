"""Estimate and bound the tokens that a request may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.types import Usage

if TYPE_CHECKING:
    from runner.types import Request

_SAID = ("tools", "functions", "response_format")
"""Parameters that are text for the model."""


_ATTACHED = {"image_url": (1_000, 16_384), "input_audio": (1_500, 65_536), "file": (6_000, 262_144)}
"""Tokens of an attachment: about, and at most. These are assumptions, not measurements: an image of about one megapixel, a minute
of sound, a PDF of a few pages; and bounds well above them. Vendors count in ways of their own, by size and by pages, and a larger
file may take more than the bound, so that a budget is kept by what answers report."""


def estimate(request: Request) -> Usage:
    """Estimate the tokens of a request: its prompt by the length of its text, and ``max_tokens`` for each answer.

    Four characters of English per token (the questions of GSM8K have 4.07), about one token per Chinese or Korean character.
    """
    characters, size, turns, attached = _length(request)
    asked = characters // 4 + (size - characters) * 3 // 8 + 4 * turns + 4
    if attached:
        asked += sum(_ATTACHED[kind][0] for kind in attached)
    answered = _longest(request, None) or 0
    return Usage(asked, answered, asked + answered)


def most(request: Request, longest: int | None = None) -> Usage | None:
    """Return the most tokens that a request may use: no token of text stands for less than one byte.

    Args:
        request: what is sent.
        longest: tokens of the longest answer of the model, for a request without a limit.

    Returns:
        None if unknown: the answer has no limit.
    """
    answered = _longest(request, longest)
    if answered is None:
        return None
    _, size, turns, attached = _length(request)
    asked = size + 8 * turns + 64  # the chat template adds marks, and may add a system message
    if attached:
        asked += sum(_ATTACHED[kind][1] for kind in attached)
    return Usage(asked, answered, asked + answered)


def limit_of(request: Request) -> int | None:
    """Return the most tokens that an answer to `request` may have; None without a limit."""
    params = request.params
    limit: int | None = params.get("max_tokens") or params.get("max_completion_tokens")
    return limit


def _longest(request: Request, otherwise: int | None) -> int | None:
    """Return the most tokens of all answers to a request."""
    if request.model_type == "embedding":
        return 0
    limit, params = limit_of(request) or otherwise, request.params
    if limit is None or ("n" not in params and "best_of" not in params):
        return limit if limit is None else int(limit)
    return int(limit) * max(int(params.get("n") or 1), int(params.get("best_of") or 1))


def _length(request: Request) -> tuple[int, int, int, list[str] | None]:
    """Return the characters, the bytes in UTF-8 and the messages of what is sent, and the types of what is attached."""
    messages, params = request.messages or (), request.params
    characters = size = 0
    others = [request.prompt, *[params[name] for name in _SAID if name in params]]
    for message in messages:
        text = message.get("content")
        if type(text) is str:
            characters += len(text)
            size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        else:
            others.append(text)
        if "tool_calls" in message:
            others.append(message["tool_calls"])
    attached: list[str] | None = None
    for part in filter(None, others):
        if not isinstance(part, str):
            attached = [*(attached or ()), *(kind for one in part if (kind := _type_of(one)) in _ATTACHED)]
        text = str(part)
        characters += len(text)
        size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return characters, size, len(messages), attached


def _type_of(part: object) -> str:
    return str(part.get("type")) if isinstance(part, dict) else ""
