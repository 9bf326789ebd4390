"""The folder of a training job, as a typed store: spec, state machine, events, metrics, log and lock.

``finetunes/<job>/`` in `OSTINATO_HOME`. ``spec.json``, ``train.jsonl`` and ``valid.jsonl`` are written once; ``state.json`` is
replaced whole, and only by the holder of the lock; ``events.jsonl`` and ``metrics.jsonl`` are appended to, and a torn last line
is ignored.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import FinetuneError
from runner.finetune.jobs.spec import FORMAT, Spec
from runner.finetune.jobs.status import TrainingStatus
from runner.secrets import redact
from runner.system import files, paths
from runner.system.clock import now

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NEXT: dict[TrainingStatus, tuple[TrainingStatus, ...]] = {
    TrainingStatus.not_started: (TrainingStatus.pending, TrainingStatus.cancelled),
    TrainingStatus.pending: (TrainingStatus.running, TrainingStatus.succeeded, TrainingStatus.failed, TrainingStatus.cancelled),
    TrainingStatus.running: (TrainingStatus.succeeded, TrainingStatus.failed, TrainingStatus.cancelled),
}
"""The legal moves. Only `JobFolder.again` leaves a final state, for the next attempt."""

_OF_ONE_ATTEMPT = (
    *("events.jsonl", "log.txt", "metrics.jsonl", "checkpoints", "adapter", "adapter.gguf", "result.json", "process.json"),
    *("merged.gguf", "output", "cancel.json"),
)
SEAL = "position.json"
"""The file of a checkpoint that is written last: a checkpoint that has it is complete."""
_LEFT_S = 3600.0
"""Seconds after which a folder that is being made or deleted counts as abandoned."""

_TAIL_BYTES = 256 * 1024


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a job: ``state.json``. Times are UTC, ISO 8601.

    Attributes:
        status: the state machine's state.
        attempt: its number, counted from 1; one more each time the job is started again.
        remote: the provider's ids for this attempt (``train``, ``valid``, ``job``, ``endpoint``).
        pid: the process that trains, for a job on this machine, once it was seen running.
        pid_started: when that process started (see `runner.system.processes.process_started`).
        model: the trained model by its LM name; None until the job has succeeded.
        error: why the job failed.
        created_at: when the job was made.
        started_at: when this attempt started.
        ended_at: when this attempt ended.
    """

    status: TrainingStatus = TrainingStatus.not_started
    attempt: int = 1
    remote: dict[str, str] = {}
    pid: int | None = None
    pid_started: float | None = None
    model: str | None = None
    error: str | None = None
    created_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    format: int = FORMAT


class Running(msgspec.Struct, frozen=True):
    """The process that trains, as recorded by itself in ``process.json``; `started` distinguishes it from others with its pid."""

    pid: int
    started: float | None
    attempt: int
    format: int = FORMAT


class JobFolder:
    """One job on disk, made by `create` or `find`.

    Attributes:
        path: the folder.
        spec: the training.
    """

    def __init__(self, path: Path, spec: Spec) -> None:
        self.path = path
        self.spec = spec

    def __repr__(self) -> str:
        return f"JobFolder({self.path.name!r})"

    @classmethod
    def create(cls, spec: Spec, train: Iterable[dict[str, Any]], valid: Iterable[dict[str, Any]] = ()) -> JobFolder:
        """Return the folder of this spec; make it with its data if it is not there. It appears whole or not at all.

        If it is there, ``spec.json`` is updated with the base's path and the provider's access, which are not part of the id.

        Raises:
            FinetuneError: it cannot be made, or has a newer format.
        """
        root = folder()
        path = root / spec.job
        if (path / "state.json").is_file():
            known = cls.open(path)
            known.place(spec)
            return known
        try:
            paths.private(root)
            _sweep(root)
            made = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
            try:
                files.write_private(made / "spec.json", _pretty(spec))
                files.write_private(made / "train.jsonl", msgspec.json.Encoder().encode_lines(list(train)))
                if rows := list(valid):
                    files.write_private(made / "valid.jsonl", msgspec.json.Encoder().encode_lines(rows))
                files.write_private(made / "state.json", _pretty(State(created_at=now())))
                made.rename(path)
            except OSError:
                shutil.rmtree(made, ignore_errors=True)
                if (path / "state.json").is_file():  # another process was faster
                    return cls.open(path)
                raise
            files.sync_folder(root)
        except OSError as error:
            raise FinetuneError(f"cannot make {path}: {error.strerror}; set OSTINATO_HOME to another folder") from None
        return cls(path, spec)

    @classmethod
    def open(cls, path: Path) -> JobFolder:
        """Open the job in `path`. Raises FinetuneError if there is none, or it has a newer format."""
        try:
            content = (path / "spec.json").read_bytes()
            version = msgspec.json.decode(content, type=dict[str, Any]).get("format")
            if not isinstance(version, int) or version > FORMAT:
                raise FinetuneError(
                    f"{path}: its format {version} is not one that this version of ostinato reads (up to {FORMAT})"
                )
            return cls(path, msgspec.json.decode(content, type=Spec))
        except OSError as error:
            raise FinetuneError(f"{path} is not a training job: spec.json: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise FinetuneError(f"{path / 'spec.json'} is broken: {error}") from None

    # --- state

    def state(self) -> State:
        """Read the job's state. Raises FinetuneError if ``state.json`` cannot be read."""
        try:
            return msgspec.json.decode((self.path / "state.json").read_bytes(), type=State)
        except OSError as error:
            raise FinetuneError(f"{self.path / 'state.json'}: {error.strerror}; was the job removed?") from None
        except msgspec.MsgspecError as error:
            raise FinetuneError(f"{self.path / 'state.json'} is broken: {error}") from None

    def move(self, status: TrainingStatus, *, model: str | None = None, error: str | None = None) -> State:
        """Move to `status`; do nothing if the job has it. Only for the holder of the lock.

        Raises:
            FinetuneError: the move is not legal.
        """
        state = self.state()
        if status is state.status:
            return state
        if status not in _NEXT.get(state.status, ()):
            raise FinetuneError(f"{self.spec.job}: cannot go from {state.status} to {status}")
        process = self.running() if status is TrainingStatus.running else None
        new = msgspec.structs.replace(
            state,
            status=status,
            pid=process.pid if process else state.pid,
            pid_started=process.started if process else state.pid_started,
            model=model,
            error=redact(error) if error else None,
            started_at=state.started_at or (now() if status is TrainingStatus.running else None),
            ended_at=now() if status.final else None,
        )
        self._write("state.json", new)
        self.event("status", f"{status}: {error}" if error else str(status))
        return new

    def again(self, *, fresh: bool) -> State:
        """Start the next attempt of a job that has ended. Only for the holder of the lock.

        Args:
            fresh: start from nothing, and move the last attempt's files to ``attempts/N/``; else start from its checkpoints.
        """
        state = self.state()
        if not state.status.final:
            raise FinetuneError(f"{self.spec.job} has not ended: it is {state.status}")
        if fresh:
            self._archive(state.attempt)
        (self.path / "cancel.json").unlink(missing_ok=True)
        new = State(status=TrainingStatus.pending, attempt=state.attempt + 1, created_at=state.created_at)
        self._write("state.json", new)
        self.event("status", f"pending: attempt {new.attempt}")
        return new

    def remember(self, **remote: str) -> State:
        """Store ids that the provider has given. They are on disk when this returns. Only for the holder of the lock."""
        state = self.state()
        new = msgspec.structs.replace(state, remote={**state.remote, **remote})
        self._write("state.json", new)
        return new

    def ask_to_cancel(self) -> None:
        """Ask for the training to be stopped; the process that advances the job does it. Needs no lock."""
        if not self.state().status.final:
            files.write_private(self.path / "cancel.json", _pretty({"format": FORMAT, "asked_at": now()}))

    def cancel_asked(self) -> bool:
        """Return whether a stop was asked for."""
        return (self.path / "cancel.json").exists()

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Lock the job across processes. Yield False if another holds the lock. The system releases it when this process ends."""
        with contextlib.ExitStack() as stack:
            try:
                ours = stack.enter_context(files.locked(self.path / ".lock", wait=False))
            except OSError as error:
                raise FinetuneError(f"{self.path / '.lock'}: {error.strerror}; was the job removed?") from None
            yield ours

    # --- events, metrics and log

    def event(self, kind: str, message: str, **data: Any) -> None:
        """Add a line to ``events.jsonl``."""
        self._append("events.jsonl", {"at": now(), "kind": kind, "message": redact(message), **data})

    def events(self) -> list[dict[str, Any]]:
        """Return every event, oldest first."""
        return _lines(self.path / "events.jsonl")

    def measured(self, step: int, **values: float) -> None:
        """Add a line to ``metrics.jsonl``."""
        self._append("metrics.jsonl", {"step": step, **values})

    def metrics(self) -> list[dict[str, Any]]:
        """Return the measurements by step; of a step that was trained twice (after a crash), the last ones."""
        steps: dict[int, dict[str, Any]] = {}
        for line in _lines(self.path / "metrics.jsonl"):
            if isinstance(step := line.get("step"), int):
                steps[step] = {**steps.get(step, {}), **line}
        return [steps[step] for step in sorted(steps)]

    @property
    def log_file(self) -> Path:
        """The file with the training process's stdout and stderr."""
        return self.path / "log.txt"

    def log(self, lines: int | None = None) -> str:
        """Return the end of the log, at most 256 KiB; for a hosted job, its events as text. Empty if there is none."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, self.log_file.stat().st_size - _TAIL_BYTES))
                said = redact(file.read().decode("utf-8", errors="replace")).splitlines()
        except OSError:
            said = [f"{event.get('at', '')} {event.get('message', '')}" for event in self.events()]
        return "\n".join(said if lines is None else said[max(0, len(said) - lines) :])

    def log_from(self, at: int) -> tuple[list[str], int]:
        """Return the complete lines of the log after byte `at`, and the byte after them. A hosted job's events count as lines."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(at)
                content = file.read()
        except OSError:
            said = [f"{event.get('at', '')} {event.get('message', '')}" for event in self.events()]
            return said[at:], len(said)
        end = content.rfind(b"\n") + 1
        return redact(content[:end].decode("utf-8", errors="replace")).splitlines(), at + end

    # --- results

    def result(self) -> dict[str, Any] | None:
        """Read ``result.json``, which the trainer writes last; None if it is not there."""
        try:
            found = msgspec.json.decode((self.path / "result.json").read_bytes())
        except (OSError, msgspec.MsgspecError):
            return None
        return found if isinstance(found, dict) else None

    def checkpoints(self) -> list[str]:
        """Return the names of the complete checkpoints, oldest first; for a hosted job, its models of earlier steps."""
        if hosted := [event["message"] for event in self.events() if event.get("kind") == "checkpoint"]:
            return hosted
        return [place.name for place in whole_checkpoints(self.path / "checkpoints")]

    def running(self) -> Running | None:
        """Return the process of this attempt, as recorded by itself; it may be gone."""
        try:
            found = msgspec.json.decode((self.path / "process.json").read_bytes(), type=Running)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if found.attempt == self.state().attempt else None

    def remove(self) -> None:
        """Delete the folder. It is renamed first, so that it disappears at once."""
        doomed = self.path.with_name(f".gone-{self.path.name}-{os.getpid()}")
        try:
            self.path.rename(doomed)
        except OSError as error:
            raise FinetuneError(f"{self.path} cannot be removed: {error.strerror}") from None
        shutil.rmtree(doomed, ignore_errors=True)

    def place(self, spec: Spec) -> None:
        """Store the base's path and the provider's access from `spec`, which is of this job. Raises FinetuneError."""
        if (spec.base, spec.access) != (self.spec.base, self.spec.access):
            self.spec = msgspec.structs.replace(self.spec, base=spec.base, access=spec.access)
            self._write("spec.json", self.spec)

    def _archive(self, attempt: int) -> None:
        kept = self.path / "attempts" / str(attempt)
        kept.mkdir(parents=True, exist_ok=True)
        files.write_private(kept / "state.json", _pretty(self.state()))
        for name in _OF_ONE_ATTEMPT:
            if (self.path / name).exists():
                (self.path / name).replace(kept / name)

    def _write(self, name: str, value: Any) -> None:
        try:
            files.write_private(self.path / name, _pretty(value))
        except OSError as error:
            raise FinetuneError(f"{self.path / name} cannot be written: {error.strerror}") from None

    def _append(self, name: str, line: dict[str, Any]) -> None:
        """Add a complete line; a torn line that a killed process left is ended first."""
        try:
            handle = os.open(self.path / name, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(handle).st_size
                torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
                os.write(handle, (b"\n" if torn else b"") + msgspec.json.encode(line) + b"\n")
            finally:
                os.close(handle)
        except OSError as error:
            raise FinetuneError(f"{self.path / name} cannot be written: {error.strerror}") from None


def folder() -> Path:
    """Return the folder of the jobs: ``finetunes`` in `OSTINATO_HOME`."""
    return paths.home() / "finetunes"


def listed() -> list[JobFolder]:
    """Return every job, oldest first. Other folders are skipped."""
    found = []
    for path in folder().glob("*/spec.json"):
        if path.parent.name.startswith("."):
            continue
        with contextlib.suppress(FinetuneError):
            job = JobFolder.open(path.parent)
            found.append((job.state().created_at or "", job))
    return [job for _, job in sorted(found, key=lambda pair: (pair[0], pair[1].spec.job))]


def find(text: str) -> JobFolder:
    """Find the job that `text` names: its id or the beginning of it, ``local/ft-<job>``, or ``latest``.

    Raises:
        FinetuneError: no job matches, or several do.
    """
    jobs = listed()
    if not jobs:
        raise FinetuneError(f"there are no training jobs in {folder()}; `ostinato ft run` makes one")
    if text == "latest":
        return jobs[-1]
    prefix = text.removeprefix("local/").removeprefix("ft-")
    matching = [job for job in jobs if prefix and job.spec.job.startswith(prefix)]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(job.spec.job for job in (matching or jobs)[-5:])
    raise FinetuneError(f"{'several jobs match' if matching else 'no job is called'} '{text}'; for example: {names}")


def whole_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints, oldest first: ``step-N`` of the own loop, ``checkpoint-N`` of TRL."""
    found = [file.parent for file in folder.glob(f"[!.]*-*/{SEAL}") if file.parent.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda place: int(place.name.rpartition("-")[2]))


def _sweep(root: Path) -> None:
    """Delete the folders that killed processes have left half made or half deleted."""
    for path in (*root.glob(".new-*"), *root.glob(".gone-*")):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFT_S:
                shutil.rmtree(path, ignore_errors=True)


def _lines(file: Path) -> list[dict[str, Any]]:
    """Return the objects in a file of JSON lines; a torn line is ignored."""
    try:
        content = file.read_bytes()
    except OSError:
        return []
    found = []
    for line in content.splitlines():
        with contextlib.suppress(msgspec.MsgspecError):
            value = msgspec.json.decode(line)
            if isinstance(value, dict):
                found.append(value)
    return found


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
