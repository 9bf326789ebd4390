"""The run folder: ``samples.jsonl`` is the source of truth, appended as rows finish; the other files describe the run."""

from __future__ import annotations

import os
import re
from array import array
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runner.errors import RecordError
from runner.records.files import FORMAT, Folder, pretty
from runner.records.summary import Summary
from runner.types import Sample

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

_Record = TypeVar("_Record", bound=Folder)
RUN_NAME = re.compile(r"^\d{8}-\d{6}-[0-9a-f]{6}(-\d+)?$")
_encoder = msgspec.json.Encoder()
_decode = msgspec.json.Decoder(Sample).decode

_NEWLINE = 10


class _Slot(msgspec.Struct):
    """The part of a line that identifies the sample; much faster to read than the whole."""

    id: str
    repeat: int = 0


class Mark(msgspec.Struct):
    """The part of a line that says how the sample was scored, and what it was asked; faster to read than the whole.

    Attributes:
        id, repeat, status, scores, request_key, cluster: as in `runner.types.Sample`.
    """

    id: str
    repeat: int = 0
    status: str = "ok"
    scores: dict[str, float] = {}
    request_key: str | None = None
    cluster: str | None = None


class _Tokens(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Brief(Mark):
    """The numbers of a line, and its answer: what a comparison needs. Fields are those of `runner.types.Sample`."""

    output: str | None = None
    usage: _Tokens | None = None
    cost_usd: float | None = None
    saved_usd: float | None = None
    cache: str = "off"
    latency_s: float | None = None


_brief = msgspec.json.Decoder(Brief).decode
_slot = msgspec.json.Decoder(_Slot).decode
_mark = msgspec.json.Decoder(Mark).decode


class RunFolder(Folder):
    """One run on disk, ``runs/<experiment>/<YYYYMMDD-HHMMSS>-<hash6>/``.

    Files: ``config.yaml`` (resolved, itself a valid input), ``overrides.yaml``, ``manifest.json``, ``samples.jsonl`` (one
    line per sample; the last line of a sample counts; a torn last line counts as not written), ``summary.json``, ``report.html``,
    ``run.log``, and ``spending.jsonl`` while it runs, or if samples without a line have cost something (`records.spending`).
    """

    kind = "run"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
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
        return (sample for sample, counts in self.history() if counts)

    def marks(self) -> Iterator[Mark]:
        """Yield how each sample was scored, in the order of `samples`. Raises RecordError if the file cannot be read."""
        replaced = self._replaced()
        for number, line in self._lines():
            if number not in replaced:
                try:
                    yield _mark(line)
                except msgspec.MsgspecError:
                    continue

    def briefs(self) -> Iterator[tuple[int, Brief]]:
        """Yield number and brief of every line, in order, in one pass: if a sample has several lines, the last one counts.

        Raises:
            RecordError: the file cannot be read.
        """
        for number, line in self._lines():
            try:
                yield number, _brief(line)
            except msgspec.MsgspecError:
                continue

    def samples_at(self, numbers: Collection[int]) -> Iterator[Sample]:
        """Yield the samples of some lines. Raises RecordError if the file cannot be read."""
        last = max(numbers, default=-1)
        for number, line in self._lines() if numbers else ():
            if number in numbers:
                yield _decode(line)
            if number >= last:
                return

    def history(self) -> Iterator[tuple[Sample, bool]]:
        """Yield every sample ever recorded, in order, and whether it counts: False if a later line has replaced it (`retry`).

        Raises:
            RecordError: the file cannot be read.
        """
        replaced = self._replaced()
        for number, line in self._lines():
            try:
                yield _decode(line), number not in replaced
            except msgspec.MsgspecError:
                continue

    def rewrite(self, samples: Iterable[Sample]) -> None:
        """Replace all samples at once (after scoring again). The old file stays until the new one is complete."""
        if self._samples is not None:
            os.close(self._samples)
            self._samples = None
        self.replace("samples.jsonl", _encoder.encode_lines(samples))

    def _replaced(self) -> set[int]:
        """Return the numbers of the few lines that a later line of the same sample has replaced, and keep them for the next call.

        While it looks for them, there is a hash for each other line.
        """
        file = self.path / "samples.jsonl"
        state = (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None
        if self._known is not None and self._known[0] == state:
            return self._known[1]
        hashes = array("q", (hash(slot) for _, slot in self.slots()))
        suspects = {one for one, other in pairwise(sorted(hashes)) if one == other}
        latest: dict[tuple[str, int], int] = {}
        replaced: set[int] = set()
        for number, slot in self.slots() if suspects else ():
            if hash(slot) in suspects:
                if slot in latest:
                    replaced.add(latest[slot])
                latest[slot] = number
        self._known = state, replaced
        return replaced

    def slots(self) -> Iterator[tuple[int, tuple[str, int]]]:
        """Yield number and sample of every whole line; a torn line counts as not written."""
        for number, line in self._lines():
            try:
                slot = _slot(line)
            except msgspec.MsgspecError:
                continue
            yield number, (slot.id, slot.repeat)

    def count_lines(self) -> int:
        """Return how many whole lines ``samples.jsonl`` has."""
        return sum(1 for _ in self._lines())

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield every whole line with its number; a torn last one is skipped, as `append` would cut it off."""
        file = self.path / "samples.jsonl"
        if not file.exists():
            return
        try:
            with file.open("rb") as stream:
                for number, line in enumerate(stream):
                    if line[-1] == _NEWLINE:
                        yield number, line
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


def list_runs(runs_dir: Path) -> list[RunFolder]:
    """Return every run below `runs_dir`, oldest first."""
    found = [path.parent for path in runs_dir.glob("*/*/manifest.json") if RUN_NAME.match(path.parent.name)]
    return [RunFolder(path.absolute()) for path in sorted(found, key=age)]


def age(path: Path) -> tuple[str, int]:
    """Return the sort key for the time a run was made: the second in its name, then the time of a file that is written once."""
    file = path / "overrides.yaml"
    return path.name[:15], file.stat().st_mtime_ns if file.exists() else 0


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
