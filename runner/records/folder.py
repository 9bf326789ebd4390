"""The run folder: ``samples.jsonl`` is the truth, appended as rows finish; the other files say what it was made from."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from array import array
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import RecordError
from runner.records.manifest import Summary
from runner.secrets import redact
from runner.types import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORMAT = 1
"""Version of the record. Readers refuse a newer one."""

_STAMP = re.compile(r"^\d{8}-\d{6}-[0-9a-f]{6}(-\d+)?$")
_encoder = msgspec.json.Encoder()
_decode = msgspec.json.Decoder(Sample).decode


class _Slot(msgspec.Struct):
    """The part of a line that says which sample it is; much faster to read than the whole."""

    id: str
    repeat: int = 0


_slot = msgspec.json.Decoder(_Slot).decode


class RunFolder:
    """One run on disk, ``runs/<experiment>/<YYYYMMDD-HHMMSS>-<hash6>/``.

    Files: ``config.yaml`` (resolved, itself a valid input), ``overrides.yaml``, ``manifest.json``, ``samples.jsonl`` (one line a
    sample; the last line of a sample counts; a torn last line is work still owed), ``summary.json``,
    ``report.html``, ``run.log``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._samples: int | None = None
        self._lock: int | None = None

    @classmethod
    def create(
        cls, runs_dir: Path, name: str, config_hash: str, *, config: str, overrides: str, manifest: dict[str, Any]
    ) -> RunFolder:
        """Make the folder, its config and its manifest, and point ``latest`` at it.

        Raises:
            RecordError: the folder cannot be made or written.
        """
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        parent = runs_dir.absolute() / name
        made: Path | None = None
        try:
            parent.mkdir(parents=True, exist_ok=True)
            made = _fresh(parent, f"{stamp}-{config_hash[:6]}")
            folder = cls(made)
            folder._put("config.yaml", config)
            folder._put("overrides.yaml", overrides)
            folder._put("manifest.json", _pretty({"format": FORMAT, **manifest}))
        except OSError as error:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)  # half a folder is no run
            why = "the disk is full; make space, or" if _is_full(error) else f"{error.strerror};"
            raise RecordError(f"cannot make a run folder in {parent}: {why} set runs_dir=...") from None
        folder._point_latest()
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The record in `path`. Raises RecordError when it is not one, or is of a newer format."""
        folder = cls(path.absolute())
        found = folder.manifest().get("format")
        if not isinstance(found, int) or found > FORMAT:
            raise RecordError(f"{path}: its format {found} is not one that this version of ostinato reads (up to {FORMAT})")
        return folder

    def lock(self) -> None:
        """Have this folder to oneself, until `close` or the end of the process: two players would pay for every row twice.

        Raises:
            RecordError: another process (or another player in this one) has it.
        """
        if self._lock is not None:
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise RecordError(f"{self.path} is being played; wait until that has ended, or stop it with Ctrl-C") from None
        self._lock = handle

    @property
    def config_file(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    # --- samples

    def append(self, samples: Iterable[Sample]) -> None:
        """Add finished samples; they are with the operating system when this returns, so a killed process loses none.

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
            raise self._unwritable(error, "samples.jsonl") from None

    def samples(self) -> Iterator[Sample]:
        """The samples in the order of their last lines; of a sample with several lines, the last one.

        Raises:
            RecordError: the file cannot be read.
        """
        return (sample for sample, counts in self.history() if counts)

    def history(self) -> Iterator[tuple[Sample, bool]]:
        """Every sample ever recorded, in order, and whether it counts: not when a later line has replaced it (`retry`).

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
        """Replace all samples at once (scores were computed anew). The old file stays until the new one is whole."""
        if self._samples is not None:
            os.close(self._samples)
            self._samples = None
        self._write("samples.jsonl", _encoder.encode_lines(samples))

    def _replaced(self) -> set[int]:
        """The numbers of the lines that a later line of the same sample has replaced: few. Of the others, a hash is kept."""
        hashes = array("q", (hash(slot) for _, slot in self._slots()))
        suspects = {one for one, other in pairwise(sorted(hashes)) if one == other}
        latest: dict[tuple[str, int], int] = {}
        replaced: set[int] = set()
        for number, slot in self._slots() if suspects else ():
            if hash(slot) in suspects:
                if slot in latest:
                    replaced.add(latest[slot])
                latest[slot] = number
        return replaced

    def _slots(self) -> Iterator[tuple[int, tuple[str, int]]]:
        """The sample of every whole line; a torn line is work still owed."""
        for number, line in self._lines():
            try:
                slot = _slot(line)
            except msgspec.MsgspecError:
                continue
            yield number, (slot.id, slot.repeat)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Every whole line with its number; a torn last one is passed over, as `append` would cut it off."""
        file = self.path / "samples.jsonl"
        if not file.exists():
            return
        try:
            with file.open("rb") as stream:
                yield from ((number, line) for number, line in enumerate(stream) if line.endswith(b"\n"))
        except OSError as error:
            raise RecordError(f"{file}: {error.strerror}") from None

    def _open_samples(self) -> int:
        """Open for appending; a torn last line (a process was killed in the middle of it) is cut off first."""
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
        self._write("config.yaml", config)

    def manifest(self) -> dict[str, Any]:
        """What the run was made from. Raises RecordError when it is missing or broken."""
        return self._read_json("manifest.json")

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest."""
        self._write("manifest.json", _pretty({"format": FORMAT, **manifest}))

    def summary(self) -> Summary | None:
        """The summary, or None while the run has none."""
        if not (self.path / "summary.json").exists():
            return None
        try:
            return msgspec.convert(self._read_json("summary.json"), Summary)
        except msgspec.ValidationError as error:
            raise RecordError(f"{self.path / 'summary.json'}: {error}") from None

    def write_summary(self, summary: Summary) -> None:
        """Replace the summary."""
        self._write("summary.json", _pretty({"format": FORMAT, **summary.to_dict()}))

    def log(self, line: str) -> None:
        """Add a line, with the time, to ``run.log``; cleaned of secrets."""
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with (self.path / "run.log").open("a", encoding="utf-8") as stream:
                stream.write(f"{stamp} {redact(line)}\n")
        except OSError as error:
            raise self._unwritable(error, "run.log") from None

    def close(self) -> None:
        """Close ``samples.jsonl`` and give up the lock; the next append opens the file again."""
        if self._samples is not None:
            os.close(self._samples)
            self._samples = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read_json(self, name: str) -> dict[str, Any]:
        file = self.path / name
        try:
            value = msgspec.json.decode(file.read_bytes())
        except OSError as error:
            raise RecordError(f"{self.path} is not a run folder: {name}: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise RecordError(f"{file} is broken: {error}") from None
        if not isinstance(value, dict):
            raise RecordError(f"{file} is broken: it holds no object")
        return value

    def _write(self, name: str, content: str | bytes) -> None:
        """Write a file whole or not at all. Raises RecordError."""
        try:
            self._put(name, content)
        except OSError as error:
            raise self._unwritable(error, name) from None

    def _put(self, name: str, content: str | bytes) -> None:
        temporary = self.path / f".{name}.tmp"
        try:
            with temporary.open("wb") as stream:
                stream.write(content.encode() if isinstance(content, str) else content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path / name)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def _unwritable(self, error: OSError, name: str) -> RecordError:
        kept, then = "what was finished before is kept", f"go on with: ostinato resume {self.path}"
        if _is_full(error):
            return RecordError(f"the disk is full: {self.path / name} could not be written; {kept}; make space, then {then}")
        return RecordError(f"{self.path / name} cannot be written: {error.strerror}; {kept}; {then}")

    def _point_latest(self) -> None:
        link = self.path.parent / "latest"
        temporary = self.path.parent / f".latest.{os.getpid()}"
        try:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(self.path.name)
            temporary.replace(link)
        except OSError:
            temporary.unlink(missing_ok=True)  # a file system without links: `find_run` looks at the names instead


def list_runs(runs_dir: Path) -> list[RunFolder]:
    """Every run below `runs_dir`, oldest first."""
    found = [path.parent for path in runs_dir.glob("*/*/manifest.json") if _STAMP.match(path.parent.name)]
    return [RunFolder(path.absolute()) for path in sorted(found, key=_age)]


def _age(path: Path) -> tuple[str, int]:
    """What sorts run folders by when they were made: the second in the name, then the time of a file that is written once."""
    file = path / "overrides.yaml"
    return path.name[:15], file.stat().st_mtime_ns if file.exists() else 0


def find_run(text: str, runs_dir: Path) -> RunFolder:
    """The run that `text` names: a folder, ``latest``, ``<experiment>`` (its newest), ``<experiment>/<stamp>``, or a prefix.

    Raises:
        RecordError: there is none, or several.
    """
    for path in (Path(text), runs_dir / text):
        if (path / "manifest.json").is_file():
            return RunFolder.open(path.resolve())
    runs = list_runs(runs_dir)
    if not runs:
        raise RecordError(f"there are no runs in {runs_dir}; `ostinato run` makes one")
    if text == "latest":
        return RunFolder.open(runs[-1].path)
    of_experiment = [run for run in runs if run.path.parent.name == text.removesuffix("/latest")]
    matching = [run for run in runs if run.path.name == text]
    matching = matching or [run for run in runs if f"{run.path.parent.name}/{run.path.name}".startswith(text)]
    matching = matching or [run for run in runs if run.path.name.startswith(text)]
    if of_experiment:
        return RunFolder.open(of_experiment[-1].path)
    if len(matching) == 1:
        return RunFolder.open(matching[0].path)
    names = ", ".join(f"{run.path.parent.name}/{run.path.name}" for run in (matching or runs)[-5:])
    problem = "several runs match" if matching else "no run matches"
    raise RecordError(f"{problem} '{text}' in {runs_dir}; for example: {names}")


def _fresh(parent: Path, name: str) -> Path:
    """Make a folder that was not there; two runs may start in the same second."""
    for attempt in range(1, 1000):
        path = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise RecordError(f"cannot make a run folder {parent / name}: too many of that name")


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _pretty(value: dict[str, Any]) -> bytes:
    return msgspec.json.format(_encoder.encode(value), indent=2) + b"\n"
