"""Find the JSON value in an answer, wherever it stands: in a fence, after prose, before a remark."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTHING = object()
"""Stands for "no value". It equals no JSON value, null included."""


class Found(NamedTuple):
    """A part of an answer that is JSON, or seems to be meant as JSON.

    Attributes:
        text: the part.
        value: its value; `NOTHING` if it cannot be decoded.
    """

    text: str
    value: Any


_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_INLINE_FENCE = re.compile(r"```(?:[a-zA-Z0-9_+-]+\s)?(.*?)```", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
_SIGN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]]')
_MOST_UNCLOSED = 100
"""Brackets in prose that are never closed, after which a text is not searched on: each costs a look at all that follows."""
_LOOKS_LIKE_JSON = re.compile(r"""\{\s*(?:["'}]|\w+\s*:)|\[\s*["'{\[\]\d]""")


def decode(text: str) -> Any:
    """Return the JSON value that `text` is; `NOTHING` if it is not JSON, or holds NaN, an infinity or a number beyond a float."""
    try:
        return _decoder.decode(text.strip())
    except (ValueError, RecursionError):
        return NOTHING


def values(text: str) -> list[Found]:
    """Return the JSON values of an answer in order, with the parts that seem to be meant as JSON and cannot be decoded.

    If the whole answer is JSON, that is the only value. Otherwise they are the objects and lists that stand in the text, inside
    fences of any language or outside; a fence that holds another JSON value (a number, a string) counts as well, and need not be
    closed. Values inside a part that cannot be decoded are not values of the answer.
    """
    if (whole := decode(text)) is not NOTHING:
        return [Found(text, whole)]
    found = [*_scan(text)]
    scalars = [
        (fence.start(), Found(content, value))
        for pattern, group in ((_FENCE, 2), (_INLINE_FENCE, 1))
        for fence in pattern.finditer(text)
        if (value := decode(content := fence[group])) is not NOTHING and not isinstance(value, (dict, list))
    ]
    return [part for _, part in sorted([*found, *scalars], key=lambda placed: placed[0])]


def last(text: str, fits: Callable[[Any], bool]) -> Any:
    """Return the last JSON value of an answer that `fits`; `NOTHING` if none does."""
    return next((part.value for part in reversed(values(text)) if part.value is not NOTHING and fits(part.value)), NOTHING)


def same(one: Any, other: Any) -> bool:
    """Compare as JSON does: 1 equals 1.0, true is not 1 (in Python it is), and the order of keys does not matter."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _scan(text: str) -> Iterator[tuple[int, Found]]:
    """Yield the objects and lists of a text with their places, and the balanced or unclosed parts that cannot be decoded."""
    position = unclosed = 0
    while unclosed < _MOST_UNCLOSED and (opening := _OPENING.search(text, position)) is not None:
        start = opening.start()
        try:
            value, position = _decoder.raw_decode(text, start)
        except RecursionError:  # a model caught in a loop of brackets
            return
        except ValueError:
            end = _end(text, start)
            looks = _LOOKS_LIKE_JSON.match(text, start) is not None
            if end is None and not looks:
                position, unclosed = start + 1, unclosed + 1
                continue
            position = len(text) if end is None else end
            if looks:
                yield start, Found(text[start:position], NOTHING)
        else:
            yield start, Found(text[start:position], value)


def _end(text: str, start: int) -> int | None:
    """Return where the bracket at `start` is closed, strings left out; None if it is not."""
    depth = 0
    for sign in _SIGN.finditer(text, start):
        if sign[0] in "{[":
            depth += 1
        elif sign[0] in "}]":
            depth -= 1
            if not depth:
                return sign.end()
    return None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"there is no {name} in JSON")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text} is larger than any number that can be held")
    return number


_decoder = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
