"""Give the parts that every group is made of: base classes, and numbers and texts with bounds."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

Positive: TypeAlias = Annotated[int, Meta(ge=1)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
_YEAR_S = 366 * 86_400
UpToAYear: TypeAlias = Annotated[float, Meta(gt=0, le=_YEAR_S)]
Dollars: TypeAlias = Annotated[float, Meta(ge=0)]
Fraction: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base class of every group: frozen, keyword-only, unknown keys are refused."""


class Kind(Config, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base class of groups with several kinds, distinguished by the key `kind`."""
