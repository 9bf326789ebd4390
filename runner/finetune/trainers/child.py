"""Training in a process of its own that outlives the one that starts it: begun once, found again, stopped.

The child is the leader of a session, its stdout and stderr go to ``log.txt``. Two facts tell whether it lives, whatever has
happened to the process that started it. It holds an inherited lock on ``child.lock`` from before it runs until the kernel has
ended it; so there is no moment at which a second one could be started beside it. And it records its pid and start time itself
(``process.json``), for those who want to signal it: a pid alone may be another process by then.

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
"""How much of the log explains a failure."""

_PYTHON = (sys.executable, "-P", "-m")
"""This Python, and nothing that happens to lie in the working directory."""

_children: list[subprocess.Popen[bytes]] = []
"""Handles of our own children: held, because dropping one while it runs makes Python warn of a leak; and polled, so that none
stays a zombie."""


class ChildTrainer:
    """Trains in a child process that keeps to the contract of the job folder.

    It is run as ``python -m MODULE FOLDER``; reads ``spec.json`` and the data; goes on from the newest checkpoint by itself;
    ends with code 0 after ``result.json`` is there; on SIGTERM it writes a checkpoint and ends. What it has said last explains
    a failure.

    Args:
        module: the program.
    """

    paid: ClassVar[bool] = False

    def __init__(self, module: str, *, poll_s: float = 0.2) -> None:
        self.module = module
        self.poll_s = poll_s

    def advance(self, job: JobFolder) -> Report:
        """Start the child unless this attempt has had one, and say how it stands."""
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
        """SIGTERM to the child and all it has started, once; SIGKILL when that has not helped after `GRACE_S`."""
        stop(job)


def start(job: JobFolder, module: str) -> bool:
    """Start the child and wait until it has recorded itself. Returns whether it has.

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
        os.close(lock)  # the child has it still
        os.close(log)
    _children.append(child)
    while job.running() is None:
        if child.poll() is not None:
            return job.running() is not None
        time.sleep(0.01)
    return True


def _findable() -> dict[str, str]:
    """What a Python that has not installed `runner` needs to find it where this one has."""
    here = Path(__file__).parents[3]
    if here.name in ("site-packages", "dist-packages"):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(here), os.environ.get("PYTHONPATH")]))}


def alive(job: JobFolder) -> bool:
    """Whether a child of this job lives, whoever has started it."""
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
    """End the child. It is told once, and killed when it has not ended after `GRACE_S`. Harmless when there is none."""
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
    onwards = f"run it again to go on from {checkpoints[-1]}" if checkpoints else "run it again to begin anew"
    last = f"; it said last: {' | '.join(said)}" if said else ", and it said nothing (was it killed?)"
    return f"the training process has ended without a result{last}; {onwards}"


def main(argv: list[str]) -> None:
    """Record this process in the job folder and become the trainer."""
    path, attempt, module = argv
    pid = os.getpid()
    files.write_private(Path(path) / "process.json", msgspec.json.encode(Running(pid, process_started(pid), int(attempt))))
    os.execv(sys.executable, [*_PYTHON, module, path])  # noqa: S606 - the same Python, and no shell


if __name__ == "__main__":
    main(sys.argv[1:])
