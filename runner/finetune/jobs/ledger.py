"""The folder of a training job, as a typed store: its spec, its state machine, its events, metrics and log, and its lock.

``finetunes/<job>/`` in `OSTINATO_HOME`. ``spec.json``, ``train.jsonl`` and ``valid.jsonl`` are written once; ``state.json`` is
replaced whole and only by the holder of the lock; ``events.jsonl`` and ``metrics.jsonl`` are appended to, and a torn last line
counts for nothing. Knows nothing of who trains.
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
"""The legal moves. From a final state only `JobFolder.again` leads on, to the next attempt."""

_OF_ONE_ATTEMPT = (
    *("events.jsonl", "log.txt", "metrics.jsonl", "checkpoints", "adapter", "adapter.gguf", "result.json", "process.json"),
    *("merged.gguf", "output", "cancel.json"),
)
SEAL = "position.json"
"""The file of a checkpoint that is written last: one that has it is whole."""
_LEFT_S = 3600.0
"""Seconds after which a folder that is being made, or deleted, was given up."""

_TAIL_BYTES = 256 * 1024


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job stands: ``state.json``. Times are UTC, ISO 8601.

    Attributes:
        status: the state of the machine.
        attempt: counted from 1; one more each time it is begun again.
        remote: what the provider calls this attempt's things (``train``, ``valid``, ``job``, ``endpoint``).
        pid: the process that trains, of a job on this machine, from when it was seen to run.
        pid_started: when that process started (see `runner.system.processes.process_started`).
        model: the trained model, as an LM names it; None until it has succeeded.
        error: why it failed.
        created_at: when the job was made.
        started_at: when this attempt began to run.
        ended_at: when it ended.
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
    """The process that trains, as it has recorded itself in ``process.json``; `started` tells it from another of its pid."""

    pid: int
    started: float | None
    attempt: int
    format: int = FORMAT


class JobFolder:
    """One job on disk; made by `create` and `find`.

    Attributes:
        path: the folder.
        spec: what is trained.
    """

    def __init__(self, path: Path, spec: Spec) -> None:
        self.path = path
        self.spec = spec

    def __repr__(self) -> str:
        return f"JobFolder({self.path.name!r})"

    @classmethod
    def create(cls, spec: Spec, train: Iterable[dict[str, Any]], valid: Iterable[dict[str, Any]] = ()) -> JobFolder:
        """The folder of this spec, made with its data unless it is there already. It appears whole or not at all.

        Of one that is there, ``spec.json`` learns where the base lies and how the provider is reached now: no part of the id.

        Raises:
            FinetuneError: it cannot be made, or is of a newer format.
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
                if (path / "state.json").is_file():  # somebody else was faster
                    return cls.open(path)
                raise
            files.sync_folder(root)
        except OSError as error:
            raise FinetuneError(f"cannot make {path}: {error.strerror}; OSTINATO_HOME names another place") from None
        return cls(path, spec)

    @classmethod
    def open(cls, path: Path) -> JobFolder:
        """The job in `path`. Raises FinetuneError when there is none, or it is of a newer format."""
        try:
            content = (path / "spec.json").read_bytes()
            version = msgspec.json.decode(content, type=dict[str, Any]).get("format")
            if not isinstance(version, int) or version > FORMAT:
                raise FinetuneError(
                    f"{path}: its format {version} is not one that this version of ostinato reads (up to {FORMAT})"
                )
            return cls(path, msgspec.json.decode(content, type=Spec))
        except OSError as error:
            raise FinetuneError(f"{path} is no training job: spec.json: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise FinetuneError(f"{path / 'spec.json'} is broken: {error}") from None

    # --- state

    def state(self) -> State:
        """Where the job stands. Raises FinetuneError when ``state.json`` cannot be read."""
        try:
            return msgspec.json.decode((self.path / "state.json").read_bytes(), type=State)
        except OSError as error:
            raise FinetuneError(f"{self.path / 'state.json'}: {error.strerror}; was the job removed?") from None
        except msgspec.MsgspecError as error:
            raise FinetuneError(f"{self.path / 'state.json'} is broken: {error}") from None

    def move(self, status: TrainingStatus, *, model: str | None = None, error: str | None = None) -> State:
        """Go to `status`; nothing happens when it is there. Only for the holder of the lock.

        Raises:
            FinetuneError: no such move.
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
        """Begin the next attempt of a job that has ended. Only for the holder of the lock.

        Args:
            fresh: from nothing: what the last attempt has left is kept in ``attempts/N/``; else from its checkpoints.
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
        """Keep what the provider calls things. On disk when this returns. Only for the holder of the lock."""
        state = self.state()
        new = msgspec.structs.replace(state, remote={**state.remote, **remote})
        self._write("state.json", new)
        return new

    def ask_to_cancel(self) -> None:
        """Leave word that the training shall be stopped; whoever drives the job sees to it. No lock is needed."""
        if not self.state().status.final:
            files.write_private(self.path / "cancel.json", _pretty({"format": FORMAT, "asked_at": now()}))

    def cancel_asked(self) -> bool:
        """Whether somebody has asked for that."""
        return (self.path / "cancel.json").exists()

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Have the job to oneself, across processes. Yields False when another has it. The system frees it when we die."""
        with contextlib.ExitStack() as stack:
            try:
                ours = stack.enter_context(files.locked(self.path / ".lock", wait=False))
            except OSError as error:
                raise FinetuneError(f"{self.path / '.lock'}: {error.strerror}; was the job removed?") from None
            yield ours

    # --- what was said and measured

    def event(self, kind: str, message: str, **data: Any) -> None:
        """Add a line to ``events.jsonl``."""
        self._append("events.jsonl", {"at": now(), "kind": kind, "message": redact(message), **data})

    def events(self) -> list[dict[str, Any]]:
        """Every event, oldest first."""
        return _lines(self.path / "events.jsonl")

    def measured(self, step: int, **values: float) -> None:
        """Add a line to ``metrics.jsonl``."""
        self._append("metrics.jsonl", {"step": step, **values})

    def metrics(self) -> list[dict[str, Any]]:
        """What was measured, by step: of a step that was trained twice (after a crash), what came last."""
        steps: dict[int, dict[str, Any]] = {}
        for line in _lines(self.path / "metrics.jsonl"):
            if isinstance(step := line.get("step"), int):
                steps[step] = {**steps.get(step, {}), **line}
        return [steps[step] for step in sorted(steps)]

    @property
    def log_file(self) -> Path:
        """What the training process says on stdout and stderr."""
        return self.path / "log.txt"

    def log(self, lines: int | None = None) -> str:
        """The end of the log, 256 KiB of it at the most; for a hosted job, its events as text. Empty when nothing was said."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, self.log_file.stat().st_size - _TAIL_BYTES))
                said = redact(file.read().decode("utf-8", errors="replace")).splitlines()
        except OSError:
            said = [f"{event.get('at', '')} {event.get('message', '')}" for event in self.events()]
        return "\n".join(said if lines is None else said[max(0, len(said) - lines) :])

    def log_from(self, at: int) -> tuple[list[str], int]:
        """The whole lines of the log after byte `at`, and the byte after the last of them. Of a hosted job, of its events."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(at)
                content = file.read()
        except OSError:
            said = [f"{event.get('at', '')} {event.get('message', '')}" for event in self.events()]
            return said[at:], len(said)
        end = content.rfind(b"\n") + 1
        return redact(content[:end].decode("utf-8", errors="replace")).splitlines(), at + end

    # --- what came of it

    def result(self) -> dict[str, Any] | None:
        """What the trainer has left last: ``result.json``; None while there is none."""
        try:
            found = msgspec.json.decode((self.path / "result.json").read_bytes())
        except (OSError, msgspec.MsgspecError):
            return None
        return found if isinstance(found, dict) else None

    def checkpoints(self) -> list[str]:
        """The names of the whole checkpoints there are, oldest first; of a hosted job, its models of earlier steps."""
        if hosted := [event["message"] for event in self.events() if event.get("kind") == "checkpoint"]:
            return hosted
        return [place.name for place in whole_checkpoints(self.path / "checkpoints")]

    def running(self) -> Running | None:
        """The process of this attempt, as it has recorded itself; it may be gone."""
        try:
            found = msgspec.json.decode((self.path / "process.json").read_bytes(), type=Running)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if found.attempt == self.state().attempt else None

    def remove(self) -> None:
        """Delete the folder: first out of sight, then for good."""
        doomed = self.path.with_name(f".gone-{self.path.name}-{os.getpid()}")
        try:
            self.path.rename(doomed)
        except OSError as error:
            raise FinetuneError(f"{self.path} cannot be removed: {error.strerror}") from None
        shutil.rmtree(doomed, ignore_errors=True)

    def place(self, spec: Spec) -> None:
        """Note where the base lies and how the provider is reached by `spec`, which is of this job. Raises FinetuneError."""
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
        """Add a whole line; what a killed process has left of one is ended first."""
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
    """Where the jobs are: ``finetunes`` in `OSTINATO_HOME`."""
    return paths.home() / "finetunes"


def listed() -> list[JobFolder]:
    """Every job there is, oldest first. Folders that are none are passed over."""
    found = []
    for path in folder().glob("*/spec.json"):
        if path.parent.name.startswith("."):
            continue
        with contextlib.suppress(FinetuneError):
            job = JobFolder.open(path.parent)
            found.append((job.state().created_at or "", job))
    return [job for _, job in sorted(found, key=lambda pair: (pair[0], pair[1].spec.job))]


def find(text: str) -> JobFolder:
    """The job that `text` names: its id or the beginning of it, ``local/ft-<job>``, or ``latest``.

    Raises:
        FinetuneError: there is none, or several.
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
    """The checkpoints there are, oldest first: ``step-N`` of our own loop, ``checkpoint-N`` of TRL."""
    found = [file.parent for file in folder.glob(f"[!.]*-*/{SEAL}") if file.parent.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda place: int(place.name.rpartition("-")[2]))


def _sweep(root: Path) -> None:
    """Clear away what killed processes have left half made or half deleted."""
    for path in (*root.glob(".new-*"), *root.glob(".gone-*")):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFT_S:
                shutil.rmtree(path, ignore_errors=True)


def _lines(file: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; a torn line counts for nothing."""
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
