"""Read rows of Parquet and Arrow files, and of the folders that Hugging Face's `datasets` saves.

With `plain`, the only module of pyarrow. Values become what JSON has, whoever wrote the file: times are text (ISO 8601), decimals
text, bytes base64, NaN null.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from runner.data.files import DataFile
from runner.data.numbered import Numbered
from runner.data.plain import objects, plain
from runner.errors import ConfigError, DataError
from runner.system.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from runner.data.sources import Fields, Record

BATCH = 4000
"""Rows that are converted at once. Batches of 1,000 are slower; those of 10,000 are not quicker, and take more memory."""


class Columnar(Numbered):
    """A Parquet or Arrow file, or the Arrow files of one dataset. Rows are read in batches; none are kept.

    Args:
        path: the file, or the folder that `datasets` made by ``save_to_disk``.
        parquet: whether it is Parquet, else Arrow (IPC file or stream).

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: it cannot be read, or has two columns of one name.
    """

    def __init__(self, path: str, *, parquet: bool) -> None:
        self._parquet = parquet
        folder = expanded(path)
        names = [path] if parquet or not folder.is_dir() else [str(folder / name) for name in _saved_files(folder)]
        self._files = [DataFile(name, "parquet" if parquet else "arrow") for name in names]
        self._path = folder
        self.name = folder.name if folder.is_dir() else self._files[0].stem
        self._length = 0
        for file in self._files:
            with self._opened(file) as opened:
                self._check_names(opened.schema.names if not parquet else opened.schema_arrow.names)
                self._length += opened.metadata.num_rows if parquet else _rows_of(opened)

    def scan(self) -> Iterator[Record]:
        """Yield every row in order."""
        position = 0
        for file in self._files:
            with self._opened(file) as opened:
                for batch in opened.iter_batches(batch_size=BATCH) if self._parquet else _batches(opened):
                    for fields in self._rows(batch, position):
                        yield position, fields
                        position += 1

    def place(self, position: int) -> str:
        """Return `position` as messages name it, counted from 1."""
        return f"{self._path}, row {position + 1}"

    def _rows(self, batch: Any, position: int) -> Iterable[Fields]:
        try:
            found = objects(batch.schema.names, [plain(column) for column in _cast(batch).columns])
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            until = position + batch.num_rows
            raise DataError(f"{self._path}, rows {position + 1} to {until}: {error}") from error
        return found

    @contextmanager
    def _opened(self, file: DataFile) -> Iterator[Any]:
        pyarrow = _pyarrow()
        try:
            with file.opened() as raw:
                yield self._reader(raw)
        except pyarrow.ArrowException as error:
            kind = "Parquet" if self._parquet else "Arrow"
            raise DataError(f"{file.path} is not {kind} that can be read: {error}") from error

    def _reader(self, raw: BinaryIO) -> Any:
        if self._parquet:
            from pyarrow.parquet import ParquetFile

            return ParquetFile(raw)
        from pyarrow import ipc

        magic = raw.read(6)
        raw.seek(0)
        return ipc.open_file(raw) if magic == b"ARROW1" else ipc.open_stream(raw)

    def _check_names(self, names: list[str]) -> None:
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{self._path} names the columns {', '.join(map(repr, doubled))} more than once; rename one")


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ConfigError("Parquet and Arrow need a package that is not installed: pip install 'ostinato[data]'") from None
    return pyarrow


def _saved_files(folder: Path) -> list[str]:
    """Return the Arrow files of a folder that `datasets` has saved (``state.json``, datasets 2 to 5). Raises DataError."""
    state, splits = folder / "state.json", folder / "dataset_dict.json"
    try:
        if splits.is_file():
            names = msgspec.json.decode(splits.read_bytes())["splits"]
            raise DataError(f"{folder} holds several splits; name one: {', '.join(str(folder / name) for name in names)}")
        if not state.is_file():
            raise DataError(f"{folder} is a directory, and not a saved dataset (it has no state.json): name one data file")
        return [entry["filename"] for entry in msgspec.json.decode(state.read_bytes())["_data_files"]]
    except (OSError, msgspec.MsgspecError, KeyError, TypeError) as error:
        raise DataError(f"{folder} cannot be read as a saved dataset: {type(error).__name__}: {error}") from error


def _rows_of(reader: Any) -> int:
    return sum(batch.num_rows for batch in _record_batches(reader))


def _record_batches(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):  # a file, whose batches are numbered; a stream is iterated
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _batches(reader: Any) -> Iterator[Any]:
    for batch in _record_batches(reader):
        for start in range(0, batch.num_rows, BATCH):
            yield batch.slice(start, BATCH)


def _cast(batch: Any) -> Any:
    """Return a batch with times in microseconds: finer ones have no type in Python, unless pandas is there."""
    import pyarrow

    coarse = [_coarse(field) for field in batch.schema]
    if all(new is old for new, old in zip(coarse, batch.schema, strict=True)):
        return batch
    return batch.cast(pyarrow.schema(coarse), safe=False)


def _coarse(field: Any) -> Any:
    """Return a field with times in microseconds, also within lists and structs; the same object if it has none finer."""
    import pyarrow
    from pyarrow import types

    kind = field.type
    new = kind
    if types.is_timestamp(kind) and kind.unit == "ns":
        new = pyarrow.timestamp("us", kind.tz)
    elif types.is_time64(kind) and kind.unit == "ns":
        new = pyarrow.time64("us")
    elif types.is_duration(kind) and kind.unit == "ns":
        new = pyarrow.duration("us")
    elif types.is_struct(kind):
        inner = [kind.field(number) for number in range(kind.num_fields)]
        coarse = [_coarse(part) for part in inner]
        new = kind if all(map(_same, coarse, inner)) else pyarrow.struct(coarse)
    elif types.is_list(kind) or types.is_large_list(kind):
        part = _coarse(kind.value_field)
        make = pyarrow.list_ if types.is_list(kind) else pyarrow.large_list
        new = kind if part is kind.value_field or part.equals(kind.value_field) else make(part)
    return field if new is kind else field.with_type(new)


def _same(one: Any, other: Any) -> bool:
    return bool(one.equals(other))
