"""Generate values for configs, data files and answers of servers: JSON of any shape, and configs that the schema allows."""

from __future__ import annotations

import math
import types
import typing
from typing import Annotated, Any, Literal

import msgspec
from hypothesis import strategies as st
from msgspec.structs import fields as struct_fields

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Text that can be written as UTF-8: control characters, odd line breaks and characters of several bytes included."""

NUMBERS = st.integers() | st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**64), 10**40]) | st.floats(allow_nan=False)
FINITE = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)


def json_values(numbers: st.SearchStrategy[Any] = NUMBERS, text: st.SearchStrategy[str] = UNICODE) -> st.SearchStrategy[Any]:
    """Generate any JSON value, a few levels deep."""
    leaves = st.none() | st.booleans() | numbers | text
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=12
    )


TRICKY = [
    "",
    "~",
    "null",
    "no",
    "012",
    "1e3",
    "1:30",
    "${",
    "${x}",
    "\\${oc.env:HOME}",
    "{{ question }}",
    "#",
    "- a",
    "a: b",
    "\u2028",
]
CONFIG_TEXT = (
    UNICODE | st.sampled_from(TRICKY) | st.lists(st.sampled_from([*TRICKY, "\\", "'", '"', " "]), max_size=5).map("".join)
)


def of(annotation: Any, text: st.SearchStrategy[str] = CONFIG_TEXT) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one return per type
    """Generate plain data that `msgspec.convert` accepts as `annotation`: what YAML can hold for a field of the schema."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        bounds = [meta for meta in arguments[1:] if isinstance(meta, msgspec.Meta)]
        return _bounded(arguments[0], bounds[0]) if bounds else of(arguments[0], text)
    if origin is typing.Union or origin is types.UnionType:
        return st.one_of([of(member, text) for member in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(of(arguments[0], text), max_size=3)
    if origin is dict:
        return st.dictionaries(UNICODE, of(arguments[1], text), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return _struct(annotation, text)
    plain = {
        str: text,
        int: st.integers(-(2**62), 2**62),
        float: st.floats(-1e300, 1e300),
        bool: st.booleans(),
        type(None): st.none(),
        Any: json_values(FINITE),
    }
    return plain[annotation]


def _struct(struct: type[msgspec.Struct], text: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    tag = struct.__struct_config__.tag
    required = {} if tag is None else {"kind": st.just(tag)}
    optional = {}
    for field in struct_fields(struct):
        (required if field.required else optional)[field.encode_name] = st.deferred(lambda kind=field.type: of(kind, text))
    return st.fixed_dictionaries(required, optional=optional)


def _bounded(kind: Any, meta: msgspec.Meta) -> st.SearchStrategy[Any]:
    if kind is str:
        return st.from_regex(meta.pattern, fullmatch=True) if meta.pattern else st.text(min_size=1, max_size=20)
    if kind is int:
        return st.integers(meta.ge if meta.ge is not None else -(2**62), meta.le if meta.le is not None else 2**62)
    low = meta.ge if meta.ge is not None else math.nextafter(meta.gt, math.inf) if meta.gt is not None else -1e300
    return st.floats(low, meta.le if meta.le is not None else 1e300)
