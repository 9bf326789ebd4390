"""Flat rows as data frames and as Parquet. The only module that imports polars and pandas, which are optional."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    import pandas as pd
    import polars as pl


def to_polars(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Return rows as a polars data frame. Raises ConfigError if polars is not installed."""
    try:
        import polars
    except ModuleNotFoundError as error:
        raise _missing(error, "pip install 'ostinato[tables]'") from None
    types: dict[type, Any] = {bool: polars.Boolean, int: polars.Int64, float: polars.Float64, str: polars.String}
    columns = {name: (_kind(name, values), values) for name, values in _columns(rows).items()}
    frame: pl.DataFrame = polars.DataFrame(
        {name: _uniform(values, kind) for name, (kind, values) in columns.items()},
        schema={name: types[kind] for name, (kind, _) in columns.items()},
    )
    return frame


def to_pandas(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a pandas data frame. Raises ConfigError if pandas is not installed."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise _missing(error, "pip install pandas") from None
    # whole numbers of which some are unknown stay whole
    types: dict[type, Any] = {bool: "boolean", int: "Int64", float: "float64", str: "object"}
    columns = {name: (_kind(name, values), values) for name, values in _columns(rows).items()}
    frame: pd.DataFrame = pandas.DataFrame(
        {name: pandas.Series(_uniform(values, kind), dtype=types[kind]) for name, (kind, values) in columns.items()}
    )
    return frame


def write_parquet(rows: Iterable[dict[str, Any]], file: BinaryIO) -> None:
    """Write rows as Parquet. Raises ConfigError if polars is not installed."""
    to_polars(rows).write_parquet(file)


def _missing(error: ModuleNotFoundError, install: str) -> ConfigError:
    return ConfigError(f"this needs {error.name}, which is not installed: {install}")


def _columns(rows: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return rows as columns; a row that lacks a column has None there."""
    columns: dict[str, list[Any]] = {}
    for count, row in enumerate(rows):
        for name in row:
            if name not in columns:
                columns[name] = [None] * count
        for name, values in columns.items():
            values.append(row.get(name))
    return columns


def _kind(name: str, values: list[Any]) -> type:
    """Return the one type that a column can have without loss: bool, int, float or str (JSON text for anything else).

    If all values are unknown, the column's name decides, so that tables of several runs can be concatenated.
    """
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        whole = name == "rank" or name.startswith("usage.") or name.endswith((".n", ".status"))
        return int if whole else float if name.startswith("score.") or name.endswith(("_usd", "_s")) else str
    if kinds == {int, float}:
        return float
    whole = kinds == {int} and all(abs(value) < 2**63 for value in values if value is not None)
    return kinds.pop() if whole or kinds in ({bool}, {float}, {str}) else str


def _uniform(values: list[Any], kind: type) -> list[Any]:
    if kind is float:
        return [None if value is None else float(value) for value in values]
    if kind is not str:
        return values
    return [value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode() for value in values]
