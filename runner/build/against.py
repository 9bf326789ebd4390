"""The answers that others are compared with: those of another run, or of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from runner.build.text import text_in
from runner.errors import ConfigError, RecordError
from runner.records import find_run

if TYPE_CHECKING:
    from pathlib import Path


class OtherAnswer(msgspec.Struct, frozen=True):
    """An answer that others are compared with: a line of a file, or of a run's samples."""

    id: str
    output: str
    repeat: int = 0


def other_answers(against: str, key: str, runs_dir: Path) -> list[OtherAnswer]:
    """Return the answers of a run, or of a file (``*.jsonl``, or ``*.txt`` in a capsule), that the config names under `key`.

    Raises:
        ConfigError: there is no such run or file, or it cannot be read.
    """
    if is_file_of_answers(against):
        try:
            return msgspec.json.Decoder(OtherAnswer).decode_lines(text_in(against, key))
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{key}: {against}: each line is {{id, output}} and perhaps repeat: {error}") from None
    try:
        record = find_run(against, runs_dir)
    except RecordError as error:
        raise ConfigError(f"{key}: {error}") from None
    return [OtherAnswer(one.id, one.output, one.repeat) for one in record.samples() if one.output is not None]


def is_file_of_answers(against: str) -> bool:
    """Return whether answers to compare with are in a file, and not those of a run."""
    return against.endswith((".jsonl", ".txt"))
