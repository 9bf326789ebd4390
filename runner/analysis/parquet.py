"""The only door to the library that writes Parquet (polars): plain rows in, the bytes of a file out."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def to_parquet(rows: Sequence[dict[str, Any]]) -> bytes | None:
    """The rows as a Parquet file; None where polars (the extra ``tables``) is not installed. A column of mixed types is text."""
    try:
        import polars
    except ModuleNotFoundError:
        return None
    columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
    frame = polars.DataFrame({name: _of_one_type(values) for name, values in columns.items()}, strict=False)
    content = io.BytesIO()
    frame.write_parquet(content)
    return content.getvalue()


def _of_one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1:
        return values
    kind = float if kinds == {int, float} else str
    return [None if value is None else kind(value) for value in values]
