"""Tell which kind of data a file holds: by its name, and by its first bytes."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

FileKind: TypeAlias = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "xlsx"]

PACKED = (".gz", ".zst")
"""Endings of packed files. Text is unpacked while it is read."""


class Format(NamedTuple):
    """A file format.

    Attributes:
        kind: its `data.kind`.
        endings: of the names of such files.
        magic: its first bytes; None: text, which has none.
        source: where they are specified.
    """

    kind: FileKind
    endings: tuple[str, ...]
    magic: bytes | None
    source: str


FORMATS = (
    Format("jsonl", (".jsonl", ".ndjson"), None, "jsonlines.org; ndjson-spec 1.0"),
    Format("json", (".json",), None, "RFC 8259"),
    Format("csv", (".csv",), None, "RFC 4180"),
    Format("tsv", (".tsv", ".tab"), None, "IANA, text/tab-separated-values"),
    Format("parquet", (".parquet", ".pq"), b"PAR1", "Apache Parquet format 2.11, file format"),
    Format("arrow", (".arrow", ".feather", ".ipc"), b"ARROW1", "Apache Arrow columnar format 1.5, IPC file"),
    Format("arrow", (), b"\xff\xff\xff\xff", "Apache Arrow columnar format 1.5, IPC stream; files of Hugging Face datasets"),
    Format("xlsx", (".xlsx", ".xlsm", ".ods"), b"PK\x03\x04", "PKWARE APPNOTE 6.3.10: a zip archive, as ECMA-376 has it"),
)

_PACKS = ((b"\x1f\x8b", ".gz", "RFC 1952"), (b"\x28\xb5\x2f\xfd", ".zst", "RFC 8878"))


def kind_of(name: str) -> FileKind | None:
    """Return the kind of a file by its name, without the ending of a packed one; None if the name does not tell."""
    lower = name.lower()
    for ending in PACKED:
        lower = lower.removesuffix(ending)
    return next((row.kind for row in FORMATS if lower.endswith(row.endings or ("\0",))), None)


def mistaken(name: str, head: bytes, kind: FileKind | None) -> str | None:
    """Return what is wrong with a file, as messages say it, if its first bytes are not those of its kind.

    Args:
        name: its name.
        head: its first bytes.
        kind: what it should be; None: text.
    """
    told = next((row.kind for row in FORMATS if row.magic and head.startswith(row.magic)), None)
    packed = next((ending for magic, ending, _ in _PACKS if head.startswith(magic)), None)
    if kind is None:
        if told is not None:
            return f"is not text: use data={told}"
        return (
            f"is packed, and its name does not say so: let it end in {packed}" if packed and not name.endswith(PACKED) else None
        )
    if told == kind:
        return None
    by_name = kind_of(name)
    other = told or (by_name if by_name != kind else None) or "jsonl, data=csv or another kind"
    return f"is not of this kind (data={kind}): use data={other}"
