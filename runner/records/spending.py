"""``spending.jsonl``: what a run has spent that ``samples.jsonl`` does not say, so that neither a stop nor a kill forgets it.

The first line is the balance of earlier sittings: what was spent on samples without a line, and how many lines
``samples.jsonl`` had then. Each further line is the sum of one slot, written before each of its attempts is sent and after
each that has failed. Named models, such as a judge, have lines of their own, with the model's name. The last line of a slot
and a model counts, until a later line of ``samples.jsonl`` has the slot's sample, which says what it has used itself. So a
run that was killed knows which requests were in flight: each counts as sent, and as using the most that it may use. A run
that has ended keeps one line; none if every sample has its line.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from runner.errors import RecordError
from runner.types import Spent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.records.folder import RunFolder
    from runner.types import Sample

_Slot: TypeAlias = tuple[str, int]

_LARGEST = 2**20
"""Bytes from which the file is written again without the lines that count no more."""


class Unrecorded(msgspec.Struct, frozen=True, omit_defaults=True):
    """Spending on slots that have no sample: on the main model, and on named ones."""

    spent: Spent = Spent()
    named: dict[str, Spent] = {}

    def plus(self, spent: Spent, model: str | None) -> Unrecorded:
        """Return the sum with what one more slot has spent on a model."""
        if model is None:
            return Unrecorded(self.spent + spent, self.named)
        return Unrecorded(self.spent, {**self.named, model: self.named.get(model, Spent()) + spent})


class _Balance(msgspec.Struct, omit_defaults=True):
    lines: int
    spent: Spent = Spent()
    named: dict[str, Spent] = {}


class _Entry(msgspec.Struct, omit_defaults=True):
    id: str
    repeat: int = 0
    spent: Spent = Spent()
    model: str | None = None


_encode = msgspec.json.Encoder().encode
_decode_balance = msgspec.json.Decoder(_Balance).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode


class Spending:
    """Keep what is spent on slots without a sample. One process at a time, the one that holds the folder's lock.

    Attributes:
        earlier: what earlier sittings have spent on samples without a line.
    """

    def __init__(self, record: RunFolder) -> None:
        """Read what earlier sittings have left, as the balance to begin with. Raises RecordError."""
        self._record = record
        self._file = record.path / "spending.jsonl"
        self._handle: int | None = None
        self._size = 0
        self._open: dict[_Slot, dict[str | None, Spent]] = {}
        self._lines = record.count_lines()
        self.earlier = unrecorded(record)
        if self._file.exists():
            self._rewrite()

    @property
    def total(self) -> Unrecorded:
        """Spending on slots that have no sample, over all sittings."""
        return _sum(self.earlier, self._open)

    def keep(self, slot: _Slot, spent: Spent, model: str | None = None) -> None:
        """Write down what a slot has spent so far on a model; None is the main one. Raises RecordError."""
        self._open.setdefault(slot, {})[model] = spent
        line = _encode(_Entry(*slot, spent, model)) + b"\n"
        try:
            if self._handle is None:
                self._handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                self._size = os.fstat(self._handle).st_size
                line = line if self._size else self._balance() + line
            self._size += len(line)
            while line:
                line = line[os.write(self._handle, line) :]
        except OSError as error:
            raise self._record.unwritable(error, self._file.name) from None
        if self._size > _LARGEST:
            self._rewrite()

    def recorded(self, samples: Iterable[Sample]) -> None:
        """Forget the slots of samples that are in the record now, one line each."""
        for sample in samples:
            self._lines += 1
            self._open.pop((sample.id, sample.repeat), None)

    def lost(self, slots: Iterable[_Slot]) -> dict[_Slot, dict[str | None, Spent]]:
        """Count what slots have spent that are asked again from the beginning, and return it. Raises RecordError."""
        gone = {slot: self._open.pop(slot) for slot in list(slots) if slot in self._open}
        if gone:
            self.earlier = _sum(self.earlier, gone)
            self._rewrite()
        return gone

    def settled(self) -> None:
        """Forget all slots: the samples say what was spent on them, in lines that were written again."""
        self._open = {}

    def finish(self) -> None:
        """Leave one line, of what has no sample; no file if there is nothing. Raises RecordError."""
        self.close()
        self.earlier, self._open = self.total, {}
        if self.earlier != Unrecorded():
            self._rewrite()
        else:
            self._file.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _rewrite(self) -> None:
        self.close()
        entries = [
            _encode(_Entry(*slot, spent, model)) + b"\n" for slot, models in self._open.items() for model, spent in models.items()
        ]
        self._record.replace(self._file.name, b"".join([self._balance(), *entries]))

    def _balance(self) -> bytes:
        return _encode(_Balance(self._lines, self.earlier.spent, self.earlier.named)) + b"\n"


def unrecorded(record: RunFolder) -> Unrecorded:
    """Return what a run has spent on slots that have no sample, also if it was killed. Raises RecordError."""
    file = record.path / "spending.jsonl"
    try:
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]  # a torn line is of an attempt that was not sent
        if not whole:  # the run has ended, or is of a version without this file
            summary = record.summary()
            return Unrecorded(summary.unrecorded) if summary else Unrecorded()
        balance = _decode_balance(whole[0])
        entries: dict[_Slot, dict[str | None, Spent]] = {}
        for entry in map(_decode_entry, whole[1:]):
            entries.setdefault((entry.id, entry.repeat), {})[entry.model] = entry.spent
    except OSError as error:
        raise RecordError(f"{file}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise RecordError(f"{file} is broken: {error}") from None
    for number, slot in record.slots() if entries else ():
        if number >= balance.lines:
            entries.pop(slot, None)
    return _sum(Unrecorded(balance.spent, balance.named), entries)


def _sum(total: Unrecorded, slots: dict[_Slot, dict[str | None, Spent]]) -> Unrecorded:
    for models in slots.values():
        for model, spent in models.items():
            total = total.plus(spent, model)
    return total
