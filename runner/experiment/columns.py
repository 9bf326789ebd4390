"""Read a column of a run's data. Records hold requests and answers, but not the columns of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from runner import build
from runner.errors import DataError, RecordError
from runner.experiment.files import rooted
from runner.records import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    from runner.data import Dataset


def column_of(folder: Path, column: str) -> dict[str, str]:
    """Return the values of `column` as text, by row id. The data is opened where it was when the run began.

    Raises:
        RecordError: the folder is not a record, or its data has changed since.
        ConfigError, DataError: the data is gone, or has no such column.
    """
    from runner.config.compose import read

    record = RunFolder.open(folder)
    manifest = record.manifest()
    data = build.dataset(rooted(read(record.config_file), manifest))
    if data.fingerprint != manifest.get("data", {}).get("fingerprint"):
        raise RecordError(f"{folder}: the data has changed since this run began, so '{column}' cannot be taken from it")
    if column not in data.columns:
        raise DataError(f"{data.name} has no column '{column}'; it has {', '.join(data.columns)}")
    return values_of(data, column)


def values_of(data: Dataset, column: str) -> dict[str, str]:
    """Return the values of `column` as text, by row id. Raises DataError if a row has none."""
    return {row.id: _text(row.fields.get(column), row.id, column) for row in data}


def _text(value: object, row: str, column: str) -> str:
    if value is None:
        raise DataError(f"row {row!r} has nothing in the column '{column}'")
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
