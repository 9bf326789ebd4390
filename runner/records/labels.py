"""``labels.jsonl``: what people say about answers of a run. It stands beside the record, and is written whole."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from runner.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runner.records.folder import RunFolder
    from runner.types import Sample

FILE = "labels.jsonl"
FORMAT = 1


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """One line: what one person says about one answer.

    Attributes:
        id, repeat: the sample.
        score: the score that the label is about.
        label: as it was written, such as ``right``.
        value: the score that it stands for.
        answer: the hash of the answer that was labelled: see `answer_hash`.
        who: the person, or ``score NAME`` for labels that are made from another score.
        when: when it was imported, ISO 8601.
        weight: how many answers it stands for, up to a factor; see `runner.stats.corrected.Labelled`.
        format: the version of the line.
    """

    id: str
    repeat: int = 0
    score: str
    label: str
    value: float
    answer: str
    who: str
    when: str
    weight: float = 1.0
    format: int = FORMAT

    @property
    def slot(self) -> tuple[str, int]:
        """Return the sample that it is about."""
        return self.id, self.repeat


def answer_hash(sample: Sample) -> str:
    """Return 16 hex digits of the SHA-256 of the answer as it was scored."""
    return hashlib.sha256((sample.output or "").encode()).hexdigest()[:16]


def read_labels(folder: Path) -> list[Label]:
    """Return the labels of a run; none without a file. Raises RecordError if it cannot be read, or is of a newer version."""
    file = folder / FILE
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"{file}: {error.strerror}") from None
    try:
        found = [msgspec.json.decode(line, type=Label) for line in lines]
    except msgspec.MsgspecError as error:
        raise RecordError(f"{file} is broken: {error}") from None
    if newer := [one.format for one in found if one.format > FORMAT]:
        raise RecordError(f"{file}: its format {newer[0]} is not one that this version of ostinato reads (up to {FORMAT})")
    return found


def add_labels(record: RunFolder, labels: Iterable[Label]) -> list[Label]:
    """Add labels, and return all. A later label of the same person for the same answer and score replaces the earlier one."""
    known = {(*one.slot, one.score, one.who): one for one in [*read_labels(record.path), *labels]}
    record.replace(FILE, msgspec.json.Encoder().encode_lines(known.values()))
    return list(known.values())
