"""Keep a Prefect server that outlives the command that starts it: `ostinato server start`."""

from __future__ import annotations

import errno
import json
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.servers import launch
from flows.servers.databases import History, folder
from runner.errors import OrchestratorError
from runner.system import files, paths, processes

DEFAULT_PORT = 4200
STATE_VERSION = 1

_STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class KeptServer(launch.Address):
    """A server that outlives the command that started it.

    Attributes:
        pid: the process to look for.
        started: when it started (see `processes.process_started`), so that a reused pid is noticed.
        port: where it listens on 127.0.0.1.
        log: the file that it writes to.
    """

    pid: int
    started: float | None
    port: int
    log: str

    @property
    def process(self) -> processes.Process:
        """Return the process, running or not."""
        return processes.attach(self.pid, self.started, Path(self.log))


def status() -> KeptServer | None:
    """Return the kept server, or None if none is running. The state file of a dead server counts as none."""
    try:
        state = json.loads(_state_file().read_text())
        if state.pop("version") != STATE_VERSION:
            return None
        server = KeptServer(**state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # nothing is kept, or the file is not ours
    return server if server.process.alive() else None


def running() -> KeptServer | None:
    """Return the kept server, or None if none is running.

    Raises:
        OrchestratorError: it is running but does not answer.
    """
    server = status()
    if server and not launch.answers(server.port):
        raise OrchestratorError(
            f"The Prefect server that `ostinato server start` keeps (pid {server.pid}, {server.ui_url}) does not answer.\n"
            f"Run `ostinato server stop`, then start it again or continue without it. Its log: {server.log}"
        )
    return server


def start(port: int = DEFAULT_PORT) -> KeptServer:
    """Start the kept server and wait until it answers. If one is already running, return that one, whatever its port.

    Raises:
        OrchestratorError: the port is taken, a run is using the history, or the server does not start (with the end of its log).
    """
    if server := running():
        return server
    if (history := History.take()) is None:
        raise OrchestratorError(
            f"{History.holder()} is recording into the history now.\n"
            "Start the server when that has ended. It will show what was recorded."
        )
    try:
        _refuse_taken(port)
        log = folder() / "server.log"
        process = launch.start(history.database, port, log=log, private=False)
        try:
            deadline = time.monotonic() + launch.START_TIMEOUT_S
            while not launch.is_up(process, port, deadline):
                time.sleep(launch.POLL_S)
            history.bury(port)
            server = KeptServer(process.pid, process.started, port, str(log))
            state = json.dumps({"version": STATE_VERSION, **asdict(server)}, indent=2)
            files.write_private(_state_file(), f"{state}\n".encode())
            process.keep()  # last: until its state is written, it ends with this process
        except BaseException:
            process.stop()
            raise
        return server
    finally:
        history.release()


def stop() -> bool:
    """Stop the kept server. Returns whether one was running.

    Raises:
        OrchestratorError: it runs under another user, or does not stop.
    """
    server = status()
    if server is not None:
        try:
            server.process.stop(_STOP_TIMEOUT_S)
        except PermissionError as error:
            raise OrchestratorError(
                f"The kept server (pid {server.pid}) runs under another user; stop it as that user."
            ) from error
        if server.process.alive():
            raise OrchestratorError(f"The kept server (pid {server.pid}) does not stop.")
    _state_file().unlink(missing_ok=True)
    return server is not None


def _refuse_taken(port: int) -> None:
    """Raise OrchestratorError if a port is taken, rather than after the five seconds that a server takes to boot."""
    try:
        with socket.create_server((launch.HOST, port)):
            return
    except OSError as error:
        what = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise OrchestratorError(f"Port {port} {what}. Choose another: ostinato server start --port N") from error


def _state_file() -> Path:
    return paths.home() / "prefect" / "server.json"
