"""Declare `data`: where rows come from, and which of them are used."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from runner.config.schema.base import Count, Kind, Positive, Text
from runner.secrets import concealed


class Data(Kind, frozen=True, kw_only=True):
    """Hold the fields that every kind of data has."""

    name: Text | None = None
    id: str | None = None
    target: str | None = None
    cluster: Text | None = None
    columns: dict[str, str] = {}
    where: Text | None = None
    ids: Annotated[list[str | int], Meta(min_length=1)] | None = None
    range: Annotated[list[Count], Meta(min_length=2, max_length=2)] | None = None
    shard: Annotated[str, Meta(pattern=r"^[0-9]+/[0-9]+$")] | None = None
    sample: Positive | None = None
    stratify: Text | None = None
    shuffle: bool = False
    limit: Positive | None = None
    seed: int = 0


class InlineData(Data, frozen=True, kw_only=True, tag="inline"):
    """Take rows from the YAML itself."""

    rows: list[dict[str, Any]] = []


Paths: TypeAlias = Text | Annotated[list[Text], Meta(min_length=1)]


class FileSource(Data, frozen=True, kw_only=True):
    """Name a file; ``*``, ``?`` and ``[...]`` stand for all files that match, and a list names several.

    An address (``https://``, ``s3://``, ``hf://``) that is signed is held without its query, which `secrets` keeps.
    """

    path: Paths
    token_env: Text | None = None

    def __post_init__(self) -> None:
        path = concealed(self.path) if isinstance(self.path, str) else [concealed(one) for one in self.path]
        if path != self.path:
            msgspec.structs.force_setattr(self, "path", path)
        if self.token_env is not None and not self.token_env.isidentifier():
            raise ValueError("token_env is the name of an environment variable that holds the token, not the token itself")


class FileData(FileSource, frozen=True, kw_only=True, tag="file"):
    """Read files, each of the kind that its name says."""


class JsonlData(FileSource, frozen=True, kw_only=True, tag="jsonl"):
    """Read a file with one JSON object per line."""


class JsonData(FileSource, frozen=True, kw_only=True, tag="json"):
    """Read a file that holds one JSON list of objects."""


class CsvData(FileSource, frozen=True, kw_only=True, tag="csv"):
    """Read comma-separated values with a header line."""


class TsvData(FileSource, frozen=True, kw_only=True, tag="tsv"):
    """Read tab-separated values with a header line."""


class ParquetData(FileSource, frozen=True, kw_only=True, tag="parquet"):
    """Read a Parquet file."""


class ArrowData(FileSource, frozen=True, kw_only=True, tag="arrow"):
    """Read an Arrow file, or a folder that `datasets` has saved."""


class XlsxData(FileSource, frozen=True, kw_only=True, tag="xlsx"):
    """Read one sheet of a workbook, whose first row names the columns."""

    sheet: Text | None = None


class PluginData(Data, frozen=True, kw_only=True, tag="plugin"):
    """Take rows from an installed package (entry point group ``ostinato.sources``)."""

    source: Text
    params: dict[str, Any] = {}


DataSource: TypeAlias = (
    InlineData | FileData | JsonlData | JsonData | CsvData | TsvData | ParquetData | ArrowData | XlsxData | PluginData
)
