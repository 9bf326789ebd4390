"""Child processes that end when their parent does, however it ends.

`start` does not start the command itself but a supervisor (this file, run as a script) that starts it. The supervisor's stdin is
a pipe whose other end only the parent holds, so end of file means that the parent is gone, by ``kill -9`` too; it then ends the
command's whole process group: SIGTERM, and SIGKILL after a grace period. SIGTERM to the supervisor does the same; a second one
cuts the grace period short. On Linux the command also asks for the kernel's parent-death signal, so killing the supervisor itself
leaves nothing behind. That signal fires when the *thread* that forked exits, so the supervisor is a process with one thread and
the caller's thread pools do not matter.

Supervisor and command have sessions of their own, so that Ctrl-C in a terminal reaches neither: the parent decides. A process
that is kept (`Process.keep`) outlives the parent and is found again by pid and start time (`attach`). The script imports only
the standard library and is run by its path in Python's isolated mode, so no file in the working directory can shadow it.

POSIX only; without Linux's parent-death signal, ``kill -9`` on the supervisor itself orphans the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GRACE_S = 10.0
"""Seconds the supervisor allows a command to end by itself after SIGTERM."""

_LINUX: bool = sys.platform == "linux"
_KEEP = b"k"
_POLL_S = 0.02
_TAIL_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1

_kept: dict[tuple[int, float | None], subprocess.Popen[bytes]] = {}
"""Processes that this one has started and kept, by pid and start time. They are its children, so only it can reap them."""


class Process:
    """A supervised command, started by this process or found again.

    Attributes:
        pid: the supervisor's process id: the one to look for and to signal.
        started: when it started (see `process_started`), or None if it was gone at once.
        log: the file that holds the command's stdout and stderr.
    """

    def __init__(self, pid: int, started: float | None, log: Path, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.started = started
        self.log = log
        self._popen = popen

    def __repr__(self) -> str:
        return f"Process(pid={self.pid}, log={str(self.log)!r})"

    def alive(self) -> bool:
        """Return whether the process is still running."""
        if self._popen is not None:
            if self._popen.poll() is None:
                return True
            self._close_pipe()
            return False
        return self.started is not None and process_started(self.pid) == self.started

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the command and everything it started. Does nothing if it has ended.

        Args:
            timeout_s: seconds to wait after SIGTERM before SIGKILL; at most `GRACE_S`.
        """
        waits = (timeout_s, 5.0, 5.0)
        for sig, wait_s in zip((signal.SIGTERM, signal.SIGTERM, signal.SIGKILL), waits, strict=True):
            if not self.alive():
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)
            deadline = time.monotonic() + wait_s
            while self.alive() and time.monotonic() < deadline:
                time.sleep(_POLL_S)

    def keep(self) -> None:
        """Let the process outlive this one from now on. Does nothing if it has ended or is kept."""
        if self._popen is None or self._popen.stdin is None or self._popen.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(self._popen.stdin.fileno(), _KEEP)
        self._close_pipe()
        _kept[self.pid, self.started] = self._popen

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the log; an empty string if there is no log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _close_pipe(self) -> None:
        if self._popen is not None and self._popen.stdin is not None:
            self._popen.stdin.close()


def start(cmd: list[str], *, log: Path, env: Mapping[str, str] | None = None, keep: bool = False) -> Process:
    """Start a command that dies with this process.

    If the command cannot be started, the log says why, and the process soon stops being `alive`.

    Args:
        cmd: the program and its arguments. No secrets: every user of the machine can read them.
        log: the file for its stdout and stderr, truncated first and readable by this user only. Its folder must exist.
        env: the whole environment of the command, secrets included; by default this process's.
        keep: let it outlive this process from the start.

    Returns:
        The running process.

    Raises:
        OSError: the log cannot be written.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), *cmd],
            stdin=subprocess.PIPE,
            stdout=descriptor,
            stderr=descriptor,
            env=env,
            bufsize=0,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    process = Process(popen.pid, process_started(popen.pid), log, popen)
    if keep:
        process.keep()
    return process


def attach(pid: int, started: float | None, log: Path) -> Process:
    """Find a process that an earlier one kept. It is `alive` only if `pid` is still the process that started at `started`."""
    return Process(pid, started, log, _kept.get((pid, started)))


def process_started(pid: int) -> float | None:
    """Return when a process started, or None if there is no such process or it is a zombie.

    Only compare the number: a pid is the same process as before exactly if its start time is the same. On Linux it
    is in seconds since the machine started, elsewhere since 1970.
    """
    if _LINUX:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()  # the process name before it, in brackets, may contain spaces
        return None if fields[0] in "ZX" else int(fields[19]) / os.sysconf("SC_CLK_TCK")
    shown = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    state, _, when = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else time.mktime(time.strptime(when.strip()))


def free_port() -> int:
    """Find a TCP port on 127.0.0.1 that is free now. Prefer port 0 where a program accepts it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main(argv: list[str]) -> int:
    """Supervise: run a command until it ends, the parent is gone, or SIGTERM arrives.

    Args:
        argv: the parent's pid, then the command. ``pid:N``: descriptor N, which is inherited, is the command's stdin.

    Returns:
        The command's exit code (128 + N for signal N), or 127 if it could not be started.
    """
    pid, _, stdin = argv[0].partition(":")
    parent, cmd = int(pid), argv[1:]
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    terms: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _: terms.append(signum))
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler is needed for the wake-up pipe to be written to
    try:
        child = subprocess.Popen(
            cmd,
            stdin=int(stdin) if stdin else subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - one thread
        )
    except OSError as error:
        sys.stderr.write(f"cannot start {cmd[0]}: {error}\n")
        return 127
    orphaned = _watch(child, parent, wake_read, terms)
    if orphaned or terms:
        _end(child, wake_read, terms)
    _signal_group(child, signal.SIGKILL)  # whatever the command left running
    code = child.wait()
    return code if code >= 0 else 128 - code


def _watch(child: subprocess.Popen[bytes], parent: int, wake: int, terms: list[int]) -> bool:
    """Wait until the command ends or there is a reason to end it. Return whether the parent is gone."""
    watched, kept = [0, wake], False
    while child.poll() is None and not terms:
        ready, _, _ = select.select(watched, [], [], None if kept else 1.0)
        if wake in ready:
            os.read(wake, 512)
        if 0 in ready:
            if os.read(0, 16) != _KEEP:
                return True
            watched, kept = [wake], True
        # A fork of the parent that does not exec inherits the pipe and keeps it open, so ask the kernel as well.
        if not kept and os.getppid() != parent:
            return True
    return False


def _end(child: subprocess.Popen[bytes], wake: int, terms: list[int]) -> None:
    _signal_group(child, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    first = len(terms) or 1
    while child.poll() is None and len(terms) <= first and (left := deadline - time.monotonic()) > 0:
        if select.select([wake], [], [], left)[0]:
            os.read(wake, 512)


def _signal_group(child: subprocess.Popen[bytes], sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says "not permitted" of a group of zombies
        os.killpg(child.pid, sig)


def die_with_parent() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` with which the kernel kills the child when this process dies.

    None where the system has no such signal. It fires when the *thread* that forked exits: use it in a process with one thread.
    """
    if not _LINUX:
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before prctl
            os._exit(1)

    return prepare


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
