"""The run folder: ``samples.jsonl`` is the source of truth, appended as rows finish; the other files describe the run."""

from __future__ import annotations

import os
import re
from array import array
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from runner.errors import RecordError
from runner.records.files import FORMAT, Folder, pretty
from runner.records.summary import Summary
from runner.types import Held, Judgement, RowError, Sample, Spent, Status, Step, Usage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

T = TypeVar("T")
_Record = TypeVar("_Record", bound=Folder)
RUN_NAME = re.compile(r"^\d{8}-\d{6}-[0-9a-f]{6}(-\d+)?$")
_encoder = msgspec.json.Encoder()
_sample = msgspec.json.Decoder(Sample)

_BLOCK = 1 << 18
"""Bytes of lines that are decoded at a time."""


class _Slot(msgspec.Struct, gc=False):
    """The part of a line that identifies the sample; much faster to read than the whole."""

    id: str
    repeat: int = 0


class Written(Sample, kw_only=True, omit_defaults=True):
    """A sample whose messages are JSON, as they stand in its line: what writes them again need not read them."""

    messages: msgspec.Raw = msgspec.Raw(b"null")  # type: ignore[assignment]


class _Ended(msgspec.Struct):
    """The part of a summary that says how many samples have a line."""

    rows: int
    owed: int = 0


class Mark(msgspec.Struct, gc=False):
    """The part of a line that says how the sample was scored, and what it was asked; faster to read than the whole.

    Attributes:
        id, repeat, status, scores, request_key, cluster: as in `runner.types.Sample`.
    """

    id: str
    repeat: int = 0
    status: Status = "ok"
    scores: dict[str, float] = {}
    request_key: str | None = None
    cluster: str | None = None


class _Tokens(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Brief(Mark, gc=False):
    """The numbers of a line, and its answer: what a comparison needs. Fields are those of `runner.types.Sample`."""

    output: str | None = None
    usage: _Tokens | None = None
    cost_usd: float | None = None
    saved_usd: float | None = None
    cache: Literal["hit", "miss", "off"] = "off"
    latency_s: float | None = None


class Counted(Mark, gc=False):
    """The part of a line that totals are made of: faster to read than the whole. Fields are those of `runner.types.Sample`."""

    error: RowError | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    saved_usd: float | None = None
    cache: Literal["hit", "miss", "off"] = "off"
    attempts: int = 0
    model_served: str | None = None
    system_fingerprint: str | None = None
    finish_reason: str | None = None
    held: Held | None = None
    named: dict[str, Spent] | None = None
    judgements: dict[str, Judgement] | None = None
    steps: list[Step] | None = None


_brief, _mark, _slot = msgspec.json.Decoder(Brief), msgspec.json.Decoder(Mark), msgspec.json.Decoder(_Slot)
_written, _counted, _ended = msgspec.json.Decoder(Written), msgspec.json.Decoder(Counted), msgspec.json.Decoder(_Ended)


class RunFolder(Folder):
    """One run on disk, ``runs/<experiment>/<YYYYMMDD-HHMMSS>-<hash6>/``.

    Files: ``config.yaml`` (resolved, itself a valid input), ``overrides.yaml``, ``manifest.json``, ``samples.jsonl`` (one
    line per sample; the last line of a sample counts; a torn last line counts as not written), ``summary.json``, ``report.html``,
    ``run.log``, and ``spending.jsonl`` while it runs, or if samples without a line have cost something (`records.spending`).
    """

    kind = "run"

    def __init__(self, path: Path, *, synced: bool = True) -> None:
        super().__init__(path, synced=synced)
        self._samples: int | None = None
        self._known: tuple[object, set[int]] | None = None

    @classmethod
    def create(
        cls,
        runs_dir: Path,
        name: str,
        config_hash: str,
        *,
        config: str,
        overrides: str,
        manifest: dict[str, Any],
        latest: bool = True,
    ) -> RunFolder:
        """Make the folder, its config and its manifest, and point ``latest`` at it (unless it is a sweep's cell).

        A cell's files are not synced: that costs more than the rest of a small cell, and a sweep runs a lost cell again.

        Raises:
            RecordError: the folder cannot be made or written.
        """
        made = cls._make(
            runs_dir.absolute() / name,
            config_hash[:6],
            {
                "config.yaml": config,
                "overrides.yaml": overrides,
                "manifest.json": pretty({"format": FORMAT, **manifest}),
            },
            synced=latest,
        )
        if latest:
            made.point_latest()
        return made

    @property
    def config_file(self) -> Path:
        """Return the path of the resolved config."""
        return self.path / "config.yaml"

    def refuse_foreign(self, verb: str) -> None:
        """Raise RecordError if another tool or a program made this run (`runner.foreign`, `runner.proxy`)."""
        if made := self.manifest().get("foreign"):
            raise RecordError(
                f"{self.path} was made by {made.get('tool')}, and cannot be {verb}: a config does not say what it asked; "
                "report, compare, score, export and fine-tuning take it"
            )

    # --- samples

    def append(self, samples: Iterable[Sample]) -> None:
        """Add finished samples. The operating system has them when this returns, so a killed process loses none.

        Raises:
            RecordError: the disk is full, or the file cannot be written. What was written before stays.
        """
        lines = _encoder.encode_lines(samples)
        try:
            if self._samples is None:
                self._samples = self._open_samples()
            while lines:
                lines = lines[os.write(self._samples, lines) :]
        except OSError as error:
            self.close()  # half a line may stand at the end: the next append cuts it off
            raise self.unwritable(error, "samples.jsonl") from None

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in the order of their last lines. If a sample has several lines, only the last one counts.

        Raises:
            RecordError: the file cannot be read.
        """
        return chain.from_iterable(self.batches())

    def batches(self) -> Iterator[list[Sample]]:
        """Yield the same samples, some hundreds at a time. Raises RecordError."""
        return self._counting(_sample)

    def written(self) -> Iterator[list[Written]]:
        """Yield the same samples as they are written, some hundreds at a time. Raises RecordError."""
        return self._counting(_written)

    def _counting(self, decoder: msgspec.json.Decoder[T]) -> Iterator[list[T]]:
        """Yield the lines that no later line has replaced, some hundreds at a time."""
        replaced = self._replaced()
        for numbers, found in self._decoded(decoder):
            if replaced.isdisjoint(numbers):
                if found:  # lines that cannot be read are none
                    yield found
            elif left := [one for number, one in zip(numbers, found, strict=True) if number not in replaced]:
                yield left

    def marks(self) -> Iterator[Mark]:
        """Yield how each sample was scored, in the order of `samples`. Raises RecordError if the file cannot be read."""
        return chain.from_iterable(self._counting(_mark))

    def briefs(self) -> Iterator[tuple[Sequence[int], list[Brief]]]:
        """Yield numbers and briefs of all lines, in order, some hundreds at a time; of a sample's lines, the last one counts.

        Raises:
            RecordError: the file cannot be read.
        """
        return self._decoded(_brief)

    def samples_at(self, numbers: Collection[int]) -> Iterator[Sample]:
        """Yield the samples of some lines. Raises RecordError if the file cannot be read."""
        last = max(numbers, default=-1)
        for number, line in self._lines() if numbers else ():
            if number in numbers:
                yield _sample.decode(line)
            if number >= last:
                return

    def history(self) -> Iterator[tuple[Sample, bool]]:
        """Yield every sample ever recorded, in order, and whether it counts: False if a later line has replaced it (`retry`).

        Raises:
            RecordError: the file cannot be read.
        """
        replaced = self._replaced()
        for numbers, samples in self._decoded(_sample):
            yield from ((sample, number not in replaced) for number, sample in zip(numbers, samples, strict=True))

    def counted(self) -> Iterator[tuple[int, Counted, bool]]:
        """Yield the number of every line, the part of it that totals are made of, and whether it counts, as `history` does."""
        replaced = self._replaced()
        for numbers, found in self._decoded(_counted):
            yield from ((number, one, number not in replaced) for number, one in zip(numbers, found, strict=True))

    def rewrite(self, samples: Iterable[Sample]) -> None:
        """Replace all samples at once (after scoring again). The old file stays until the new one is complete."""
        if self._samples is not None:
            os.close(self._samples)
            self._samples = None
        self.replace("samples.jsonl", _encoder.encode_lines(samples))

    def _replaced(self) -> set[int]:
        """Return the numbers of the few lines that a later line of the same sample has replaced, and keep them for the next call.

        There are none if the run has ended with as many samples as there are lines. Else, while it looks for them, there is a
        hash for each other line.
        """
        file = self.path / "samples.jsonl"
        state = (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None
        if self._known is not None and self._known[0] == state:
            return self._known[1]
        if (ended := self._ended_with()) is not None and ended == self.count_lines():
            self._known = state, set()
            return self._known[1]
        hashes = array("q")
        for _, slots in self._decoded(_slot):
            hashes.extend([hash((slot.id, slot.repeat)) for slot in slots])
        suspects = {one for one, other in pairwise(sorted(hashes)) if one == other} if len(set(hashes)) < len(hashes) else set()
        latest: dict[tuple[str, int], int] = {}
        replaced: set[int] = set()
        for number, slot in self.slots() if suspects else ():
            if hash(slot) in suspects:
                if slot in latest:
                    replaced.add(latest[slot])
                latest[slot] = number
        self._known = state, replaced
        return replaced

    def _ended_with(self) -> int | None:
        """Return how many samples had a line when the run ended, or its last sitting; None: it is not known."""
        try:
            found = _ended.decode((self.path / "summary.json").read_bytes())
        except (OSError, msgspec.MsgspecError):
            return None
        return found.rows - found.owed

    def slots(self) -> Iterator[tuple[int, tuple[str, int]]]:
        """Yield number and sample of every whole line; a torn line counts as not written."""
        for numbers, slots in self._decoded(_slot):
            yield from ((number, (slot.id, slot.repeat)) for number, slot in zip(numbers, slots, strict=True))

    def count_lines(self) -> int:
        """Return how many whole lines ``samples.jsonl`` has."""
        return sum(block.count(b"\n") for block in self._blocks())

    def _decoded(self, decoder: msgspec.json.Decoder[T]) -> Iterator[tuple[Sequence[int], list[T]]]:
        """Yield numbers of lines and their values, some hundreds at a time. Lines that cannot be read are left out."""
        begin = 0
        for block in self._blocks():
            count = block.count(b"\n")
            try:
                values = decoder.decode_lines(block)
            except msgspec.MsgspecError:
                values = []
            if len(values) == count:
                yield range(begin, begin + count), values
            else:
                yield _each(decoder, block, begin)
            begin += count

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield every whole line with its number; a torn last one is skipped, as `append` would cut it off."""
        return enumerate(line for block in self._blocks() for line in block.split(b"\n")[:-1])

    def _blocks(self) -> Iterator[bytes]:
        """Yield the whole lines, many at a time."""
        file = self.path / "samples.jsonl"
        if not file.exists():
            return
        rest = b""
        try:
            with file.open("rb", buffering=0) as stream:
                while block := stream.read(_BLOCK):
                    whole, end, rest = (rest + block).rpartition(b"\n")
                    if end:
                        yield whole + end
        except OSError as error:
            raise RecordError(f"{file}: {error.strerror}") from None

    def _open_samples(self) -> int:
        """Open for appending; a torn last line (its process was killed) is cut off first."""
        file = self.path / "samples.jsonl"
        handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            data = file.read_bytes()
            os.ftruncate(handle, data.rfind(b"\n") + 1)
        return handle

    # --- the run as a whole

    def write_config(self, config: str) -> None:
        """Replace the config."""
        self.replace("config.yaml", config)

    def summary(self) -> Summary | None:
        """Return the summary; None if the run has none yet."""
        if not (self.path / "summary.json").exists():
            return None
        try:
            return msgspec.convert(self._read_json("summary.json"), Summary)
        except msgspec.ValidationError as error:
            raise RecordError(f"{self.path / 'summary.json'}: {error}") from None

    def write_summary(self, summary: Summary) -> None:
        """Replace the summary."""
        self.replace("summary.json", pretty({"format": FORMAT, **summary.to_dict()}))

    def close(self) -> None:
        """Close ``samples.jsonl`` and give up the lock; the next append opens the file again."""
        if self._samples is not None:
            os.close(self._samples)
            self._samples = None
        super().close()


def _each(decoder: msgspec.json.Decoder[T], block: bytes, begin: int) -> tuple[list[int], list[T]]:
    """Decode lines one by one. Return the numbers, from `begin`, of those that can be read, and their values."""
    numbers, values = [], []
    for number, line in enumerate(block.split(b"\n")[:-1], begin):
        try:
            values.append(decoder.decode(line))
        except msgspec.MsgspecError:
            continue
        numbers.append(number)
    return numbers, values


def list_runs(runs_dir: Path) -> list[RunFolder]:
    """Return every run below `runs_dir`, oldest first."""
    return [RunFolder(path) for path in sorted(folders_named(runs_dir, RUN_NAME), key=age)]


def folders_named(runs_dir: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return the folders below `runs_dir`, one level down, that have such a name and a manifest."""
    above = [entry.path for entry in _entries(str(runs_dir.absolute())) if entry.is_dir()]
    found = [Path(entry.path) for folder in above for entry in _entries(folder) if pattern.match(entry.name)]
    return [path for path in found if (path / "manifest.json").exists()]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:  # it is not there, or may not be read: no records
        return []


def age(path: Path) -> tuple[str, int]:
    """Return the sort key for the time a run was made: the second in its name, then the time of a file that is written once."""
    try:
        return path.name[:15], (path / "overrides.yaml").stat().st_mtime_ns
    except OSError:
        return path.name[:15], 0


def find_run(text: str, runs_dir: Path) -> RunFolder:
    """Find the run that `text` names: a folder, ``latest``, ``<experiment>`` (its newest), ``<experiment>/<stamp>``, or a prefix.

    Raises:
        RecordError: there is none, or several.
    """
    if (there := named_folder(text, runs_dir)) is not None:
        return RunFolder.open(there)
    if Path(text).is_absolute():  # a folder, and never a name: its error says that it is not a run
        return RunFolder.open(Path(text))
    return RunFolder.open(pick(text, runs_dir, list_runs(runs_dir)).path)


def named_folder(text: str, runs_dir: Path) -> Path | None:
    """Return the record's folder if `text` is its path, from here or from `runs_dir`; else None."""
    return next((path.resolve() for path in (Path(text), runs_dir / text) if (path / "manifest.json").is_file()), None)


def pick(text: str, runs_dir: Path, records: Sequence[_Record]) -> _Record:
    """Return the one of `records` (oldest first) that `text` names. Raises RecordError if there is none, or several."""
    if not records:
        raise RecordError(f"there are no runs in {runs_dir}; `ostinato run` makes one")
    if text == "latest":
        return records[-1]
    of_experiment = [record for record in records if record.path.parent.name == text.removesuffix("/latest")]
    matching = [record for record in records if record.path.name == text]
    matching = matching or [record for record in records if f"{record.path.parent.name}/{record.path.name}".startswith(text)]
    matching = matching or [record for record in records if record.path.name.startswith(text)]
    if of_experiment:
        return of_experiment[-1]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(f"{record.path.parent.name}/{record.path.name}" for record in (matching or records)[-5:])
    problem = "several runs match" if matching else "no run matches"
    raise RecordError(f"{problem} '{text}' in {runs_dir}; for example: {names}")
