"""A dataset: rows with stable ids and targets, in a fixed order, streamed from a source and checked in full when opened."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from hashlib import sha256
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from runner.data.formats import FORMATS, FileKind, kind_of
from runner.data.paths import has, inside, not_inside
from runner.data.selection import Selection
from runner.data.several import Joined, matching
from runner.data.sources import Delimited, Fields, Items, JsonLines
from runner.errors import ConfigError, DataError
from runner.system.paths import expanded
from runner.types import Row
from runner.wording.numbers import count
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.data.remote.store import Kept
    from runner.data.sources import Record, Source

Kind = Literal["inline", "file"] | FileKind

_encode = msgspec.json.Encoder(order="deterministic").encode
"""Canonical JSON: keys sorted, no spaces, UTF-8. Ids and fingerprints hash it, so it may never change."""

_PLAIN = ("data.id", "data.cluster")
"""Keys that name a column, and take no path."""


class Columns(msgspec.Struct, frozen=True):
    """The columns with a meaning.

    Attributes:
        id: identifies a row; strings or integers, unique. None: a hash of the row's content does.
        target: holds the expected answer, and stays among the fields. ``answers.text`` is the value of the key `text` inside the
            column `answers`; where a list is on the way, of each of its items, so that any of them is right. None: rows have no
            target.
        mapping: ``{new: old}`` gives the column `old` the name `new` as well; `id` and `target` may use either. This lets
            templates use a column whose name is not an identifier. `old` may be a path, as for `target`, or a function that
            makes the value from the record.
        cluster: rows with the same value there are not independent; values that are not text are compared as JSON. None: all
            rows are independent.
    """

    id: str | None = None
    target: str | None = None
    mapping: Mapping[str, str | Callable[[Fields], Any]] = {}
    cluster: str | None = None


class Dataset:
    """Rows in a fixed order; iterate as often as you like. A file is read again each time, and rows are not kept.

    Opening makes one pass over the rows that will be used, which finds every error in them and computes the attributes.
    Memory: some 60 bytes per row while opening; afterwards none, or 8 bytes per row when shuffled (``json`` and ``inline``
    hold their rows).

    Ids: the `id` column as a string (integers become strings), else the first 16 hex digits of the SHA-256 of the record's
    canonical JSON, as it stands in the source. Identical records get ``-2``, ``-3``, ... after the first.

    Attributes:
        name: the given name, else the file's stem, else ``inline``.
        columns: every column name seen in the rows used, mapped names included, in order of appearance.
        fingerprint: SHA-256 (hex) over the rows used, in order: for each one the line ``[id,fields,target]`` in canonical
            JSON (a content id without its ``-2``).
        gaps: the columns that some row lacks, or in which it has null.
        remarks: what people should know of the rows: blank ones that were left out, repeated ones.
        fetched: the remote files that the rows are from; none for local ones.

    Made by `open_dataset`, which takes the same arguments.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str | None = None,
        columns: Columns = Columns(),  # noqa: B008 - frozen
        selection: Selection = Selection(),  # noqa: B008 - frozen
    ) -> None:
        self.name = name or source.name
        self._source = source
        self._id = columns.id
        self._target = columns.target
        self._mapping = dict(columns.mapping)
        self._cluster = columns.cluster
        self._limit = selection.limit
        self._order: array[int] | None = None
        if not selection.is_plain:
            self._order = selection.order(source, self._id_of, self._identified)
        self._repeated: frozenset[str] = frozenset()
        self.fetched: tuple[Kept, ...] = ()
        self._check()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Row]:
        repeated = self._repeated
        if not repeated:
            for _, row, _ in self._rows():
                yield row
            return
        seen = dict.fromkeys(repeated, 0)
        for _, row, _ in self._rows():
            if row.id in seen:
                seen[row.id] += 1
                if (times := seen[row.id]) > 1:
                    yield Row(f"{row.id}-{times}", row.fields, row.target, row.cluster)
                    continue
            yield row

    def ids(self) -> Iterator[str]:
        """Yield the id of each row in order. Costs a pass over the data."""
        return (row.id for row in self)

    def records(self) -> Iterator[Fields]:
        """Yield the rows used, in order, as they are in the source: without ids, targets and mapped columns.

        Opened as JSON lines with the same `id`, `target` and `columns`, and no `limit` or `shuffle`, they give the same rows.
        """
        return (fields for _, fields in self._records())

    def place(self, number: int) -> str:
        """Say where the row with this number, from 0, stands in the source. Costs a pass over the data up to it."""
        position, _ = next(islice(self._records(), number, None))
        return self._source.place(position)

    def _records(self) -> Iterator[Record]:
        records = self._source.scan() if self._order is None else self._source.read(self._order)
        return records if self._limit is None else islice(records, self._limit)

    def _rows(self) -> Iterator[tuple[int, Row, bytes]]:
        """Yield `(position, row, canonical)`; `canonical` is the record's JSON where the id needs it, else empty."""
        id_column, target_column, cluster_column, mapping = self._id, self._target, self._cluster, self._mapping
        for position, record in self._records():
            fields = record
            try:
                if mapping:
                    fields = self._named(position, record)
                target = None if target_column is None else self._target_in(fields, target_column)
                cluster = None if cluster_column is None else self._cluster_text(position, fields[cluster_column])
                if id_column is None:
                    canonical = self._canonical(position, record)
                    row_id = sha256(canonical).hexdigest()[:16]
                else:
                    canonical = b""
                    row_id = fields[id_column]
                    if type(row_id) is not str or not row_id:
                        row_id = self._id_text(position, row_id)
            except KeyError:
                self._missing(position, record, fields)
            yield position, Row(row_id, fields, target, cluster), canonical

    def _named(self, position: int, record: Fields) -> Fields:
        """Return the fields of a record under all their names. Raises KeyError if it lacks one, and DataError."""
        fields = record.copy()
        for new, old in self._mapping.items():
            if isinstance(old, str):
                fields[new] = record[old] if old in record or "." not in old else inside(record, old)
                continue
            try:
                fields[new] = old(record)
            except DataError as error:
                raise DataError(str(error).replace("row ''", self._source.place(position), 1)) from error
        return fields

    def _id_of(self, position: int, record: Fields) -> str:
        """Return the id of a record, without the ``-2`` of a repeated one."""
        if self._id is None:
            return sha256(self._canonical(position, record)).hexdigest()[:16]
        fields = self._identified(position, record)
        value = fields[self._id]
        return value if isinstance(value, str) and value else self._id_text(position, value)

    def _identified(self, position: int, record: Fields) -> Fields:
        """Return the fields of a record under all their names. Raises DataError if it lacks one that the config names."""
        fields = record
        try:
            fields = self._named(position, record)
            if self._id is not None:
                fields[self._id]
        except KeyError:
            self._missing(position, record, fields)
        return fields

    def _check(self) -> None:
        """Make the one pass that finds every error, and that counts and fingerprints the rows."""
        hashes = array("q")
        contents = array("q")
        names: dict[str, None] = {}
        gaps: set[str] = set()
        fingerprint = sha256()
        id_column, mapping = self._id, self._mapping
        id_key = b"" if id_column is None else _encode(id_column) + b":"
        for position, row, canonical in self._rows():
            fields = row.fields
            if not fields.keys() <= names.keys():
                if hashes:
                    gaps.update(fields.keys() - names.keys())
                names.update(dict.fromkeys(fields))
            if len(fields) < len(names) or None in fields.values():
                gaps.update(name for name in names if fields.get(name) is None)
            hashes.append(hash(row.id))
            content = canonical if canonical and not mapping else self._canonical(position, fields)
            row_id = _encode(row.id)
            target = b"null" if row.target is None else _encode(row.target)
            fingerprint.update(b"[%b,%b,%b]\n" % (row_id, content, target))
            if id_column is not None:
                shown = row_id if type(fields[id_column]) is str else row_id[1:-1]
                contents.append(hash(content.replace(id_key + shown, b"", 1)))
        if not hashes:
            raise DataError(f"{self._source.place(0)}: there are no rows in {self.name}")
        self._length = len(hashes)
        self.columns = tuple(names)
        self.gaps = frozenset(gaps)
        blank = getattr(self._source, "blank", 0)
        self.remarks = [f"{count(blank, 'blank row')} {'is' if blank == 1 else 'are'} left out"] if blank else []
        if again := len(contents) - _distinct(contents):
            self.remarks.append(
                f"{count(again, 'row')} {'has' if again == 1 else 'have'} the content of an earlier one, under another id"
            )
        self.fingerprint = fingerprint.hexdigest()
        self._find_repeated(hashes)

    def _find_repeated(self, hashes: array[int]) -> None:
        """Find ids that occur twice, by 64-bit hashes of them; equal ones are checked again."""
        if _distinct(hashes) == len(hashes):
            return
        suspects = {one for one, other in pairwise(sorted(hashes)) if one == other}
        first: dict[str, int] = {}
        repeated: set[str] = set()
        again = 0
        for position, row, _ in self._rows():
            if hash(row.id) not in suspects:
                continue
            if row.id in first:
                if self._id is not None:
                    raise DataError(
                        f"{self._source.place(position)}: the {self._id} {row.id!r} is already used in "
                        f"{self._source.place(first[row.id])}; ids must be unique"
                    )
                repeated.add(row.id)
                again += 1
            first.setdefault(row.id, position)
        self._repeated = frozenset(repeated)
        if again:
            self.remarks.append(f"{count(again, 'row')} {'is' if again == 1 else 'are'} the same as an earlier one")

    def _canonical(self, position: int, fields: Fields) -> bytes:
        try:
            return _encode(fields)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self._source.place(position)} holds a value that JSON cannot hold: {error}") from error

    def _id_text(self, position: int, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        what = "empty" if value in (None, "") else f"{value!r}, a {type(value).__name__}"
        raise DataError(f"{self._source.place(position)}: the id ({self._id}) is {what}; give each row a string or an integer")

    def _target_in(self, fields: Fields, column: str) -> Any:
        """Return the target: a column, or else a value inside one. Raises KeyError if there is neither."""
        return fields[column] if column in fields or "." not in column else inside(fields, column)

    def _cluster_text(self, position: int, value: Any) -> str:
        if value in (None, ""):
            raise DataError(f"{self._source.place(position)}: the cluster ({self._cluster}) is empty; name the row's group there")
        return value if isinstance(value, str) else _encode(value).decode()

    def _missing(self, position: int, record: Fields, fields: Fields) -> NoReturn:
        """Raise for the first column that the config names and the row lacks."""
        wanted = [(f"data.columns.{new}", old, record) for new, old in self._mapping.items() if isinstance(old, str)]
        named = (("data.id", self._id), ("data.target", self._target), ("data.cluster", self._cluster))
        wanted += [(key, name, fields) for key, name in named if name is not None]
        key, column, there = next(entry for entry in wanted if not _has(entry[2], entry[1], inside=entry[0] not in _PLAIN))
        if key not in _PLAIN and (within := column.partition(".")[0]) in there and within != column:
            raise DataError(f"{self._source.place(position)}: {not_inside(there, column, key)}")
        raise DataError(
            f"{self._source.place(position)} has no column {column!r}, which {key} names{suggest(column, there) or ';'} "
            f"the columns are {', '.join(repr(name) for name in there) or 'none'}"
        )


def _distinct(hashes: array[int]) -> int:
    """Count the different hashes, a quarter at a time: it takes less memory than all at once, and less time than to sort."""
    return sum(len({one for one in hashes if one & 3 == part}) for part in range(4))


def _has(fields: Fields, column: str, *, inside: bool) -> bool:
    return column in fields or (inside and "." in column and has(fields, column))


def open_dataset(
    kind: Kind,
    *,
    path: str | Sequence[str] | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    sheet: str | None = None,
    name: str | None = None,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    selection: Selection = Selection(),  # noqa: B008 - frozen
) -> Dataset:
    """Open data and check every row that will be used.

    Args:
        kind: ``inline`` (`rows`); ``jsonl`` (one object per line), ``json`` (a list of objects), ``csv`` or ``tsv`` (with a
            header; values stay strings); ``parquet``; ``arrow`` (also a folder that `datasets` has saved); ``xlsx`` (also xlsm
            and ods); ``file``: what the name of each file says. Text is UTF-8, with or without BOM; with a name that ends in
            ``.gz`` or ``.zst`` it is unpacked while reading.
        path: the file, or several; ``*``, ``?`` and ``[...]`` stand for all files that match, in the order of their names.
        rows: the rows themselves, for ``inline``.
        sheet: the sheet of a workbook; None: the first one.
        name: name of the data; default: the file's stem, or ``inline``.
        columns: which of them identify a row and hold its target.
        selection: which rows are used, and in which order.

    Raises:
        ConfigError: `path` and `rows` do not fit `kind`, or reading this kind needs a package that is not installed.
        DataError: the data cannot be used; the message names file, line and what to do.
    """
    if kind == "inline":
        if rows is None or path is not None:
            raise ConfigError("data.kind is inline: give data.rows, and no data.path")
        return Dataset(Items("inline", rows, "data.rows"), name=name, columns=columns, selection=selection)
    if not path or rows is not None:
        raise ConfigError(f"data.kind is {kind}: give data.path, and no data.rows")
    given = [path] if isinstance(path, str) else path
    source = _source(kind, [found for one in given for found in matching(one)], sheet)
    return Dataset(source, name=name, columns=columns, selection=selection)


def _source(kind: FileKind | Literal["file"], paths: Sequence[str], sheet: str | None) -> Source:
    sources = [_file(_told_by_name(one) if kind == "file" else kind, one, sheet) for one in paths]
    return sources[0] if len(sources) == 1 else Joined(sources[0].name, sources)


def _told_by_name(path: str) -> FileKind:
    if (kind := kind_of(path)) is not None:
        return kind
    if expanded(path).is_dir():
        return "arrow"
    endings = ", ".join(ending for row in FORMATS for ending in row.endings)
    raise DataError(f"{path}: its name does not say what it holds ({endings}); name its kind, as in data=csv")


def _file(kind: FileKind, path: str, sheet: str | None) -> Source:
    openers: dict[FileKind, Callable[[], Source]] = {
        "jsonl": lambda: JsonLines(path),
        "json": lambda: Items.from_json(path),
        "csv": lambda: Delimited(path, ","),
        "tsv": lambda: Delimited(path, "\t"),
    }
    if kind in openers:
        return openers[kind]()
    if kind == "xlsx":
        from runner.data.sheets import Sheet

        return Sheet(path, sheet)
    from runner.data.columnar import Columnar

    return Columnar(path, parquet=kind == "parquet")
