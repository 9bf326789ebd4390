"""Train in a child process that outlives its parent: start it once, find it again, stop it.

The child leads a session of its own; its stdout and stderr go to ``log.txt``. Two facts tell whether it is alive, whatever
happens to the process that started it. First, it holds an inherited lock on ``child.lock`` from before it runs until the kernel
ends it, so a second child cannot be started beside it. Second, it records its own pid and start time (``process.json``) for
processes that signal it, since a pid alone may belong to another process by then.

Run as ``python -m runner.finetune.trainers.child FOLDER ATTEMPT MODULE`` it records itself and becomes ``python -m MODULE
FOLDER``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from runner.errors import FinetuneError
from runner.finetune.jobs.backend import Report
from runner.finetune.jobs.ledger import Running
from runner.finetune.jobs.status import TrainingStatus
from runner.system import files
from runner.system.processes import process_started

if TYPE_CHECKING:
    from runner.finetune.jobs.ledger import JobFolder

GRACE_S = 30.0
"""Seconds a child has to write a checkpoint after SIGTERM, before SIGKILL."""

_SAID_LINES, _SAID_CHARACTERS = 3, 300
"""The part of the log that an error message quotes."""

_PYTHON = (sys.executable, "-P", "-m")
"""This Python; ``-P`` keeps it from importing anything in the working directory."""

_children: list[subprocess.Popen[bytes]] = []
"""Handles of this process's children. They are held, because Python warns when a handle is dropped while the child runs, and
polled, so that no child stays a zombie."""


class ChildTrainer:
    """Train in a child process that follows the contract of the job folder.

    The child is run as ``python -m MODULE FOLDER``. It reads ``spec.json`` and the data, resumes from the newest checkpoint by
    itself, writes ``result.json`` and ends with code 0; on SIGTERM it writes a checkpoint and ends. The end of its log explains a
    failure.

    Args:
        module: the program.
    """

    paid: ClassVar[bool] = False

    def __init__(self, module: str, *, poll_s: float = 0.2) -> None:
        self.module = module
        self.poll_s = poll_s

    def advance(self, job: JobFolder) -> Report:
        """Start the child unless this attempt has had one, and report its state."""
        if alive(job):
            return Report(TrainingStatus.running)
        if job.result() is not None:
            return Report(TrainingStatus.succeeded, model=f"local/ft-{job.spec.job}")
        if job.cancel_asked():
            return Report(TrainingStatus.cancelled)
        if job.running() is not None:
            return Report(TrainingStatus.failed, error=_why(job))
        return Report(TrainingStatus.running) if start(job, self.module) else Report(TrainingStatus.failed, error=_why(job))

    def cancel(self, job: JobFolder) -> None:
        """Send SIGTERM, once, to the child and all it has started; send SIGKILL if it still runs after `GRACE_S`."""
        stop(job)


def start(job: JobFolder, module: str) -> bool:
    """Start the child and wait until it has recorded itself. Return whether it has.

    Raises:
        FinetuneError: the log cannot be written.
    """
    attempt = job.state().attempt
    try:
        lock = os.open(job.path / "child.lock", os.O_RDWR | os.O_CREAT, 0o600)
        log = os.open(job.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise FinetuneError(f"{job.path}: {error.strerror}") from None
    try:
        if not files.lock(lock):
            return True
        child = subprocess.Popen(
            [*_PYTHON, "runner.finetune.trainers.child", str(job.path), str(attempt), module],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            start_new_session=True,
            env={**os.environ, **_findable()},
        )
    finally:
        os.close(lock)  # the child still holds it
        os.close(log)
    _children.append(child)
    while job.running() is None:
        if child.poll() is not None:
            return job.running() is not None
        time.sleep(0.01)
    return True


def _findable() -> dict[str, str]:
    """Return the environment in which a Python finds `runner` where this one has it, even if it is not installed."""
    here = Path(__file__).parents[3]
    if here.name in ("site-packages", "dist-packages"):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(here), os.environ.get("PYTHONPATH")]))}


def alive(job: JobFolder) -> bool:
    """Return whether a child of this job is alive, whichever process started it."""
    for child in list(_children):
        if child.poll() is not None:
            _children.remove(child)
    try:
        lock = os.open(job.path / "child.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        return not files.lock(lock)
    finally:
        os.close(lock)


def stop(job: JobFolder) -> None:
    """End the child: SIGTERM once, and SIGKILL if it still runs after `GRACE_S`. Does nothing if there is none."""
    known = job.running()
    if known is None or known.started is None or process_started(known.pid) != known.started:
        return
    told = job.path / "cancel.json"
    marker = job.path / ".told"
    if not marker.exists() or (told.exists() and marker.stat().st_mtime < told.stat().st_mtime):
        number = signal.SIGTERM
        marker.touch()
    elif time.time() - marker.stat().st_mtime > GRACE_S:
        number = signal.SIGKILL
    else:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(known.pid, number)


def _why(job: JobFolder) -> str:
    said = [line.strip()[:_SAID_CHARACTERS] for line in job.log().splitlines() if line.strip()][-_SAID_LINES:]
    checkpoints = job.checkpoints()
    onwards = f"run it again to resume from {checkpoints[-1]}" if checkpoints else "run it again to start over"
    last = f"; the end of its log: {' | '.join(said)}" if said else ", and its log is empty (was it killed?)"
    return f"the training process ended without a result{last}; {onwards}"


def main(argv: list[str]) -> None:
    """Record this process in the job folder and become the trainer."""
    path, attempt, module = argv
    pid = os.getpid()
    files.write_private(Path(path) / "process.json", msgspec.json.encode(Running(pid, process_started(pid), int(attempt))))
    os.execv(sys.executable, [*_PYTHON, module, path])  # noqa: S606 - the same Python, and no shell


if __name__ == "__main__":
    main(sys.argv[1:])
