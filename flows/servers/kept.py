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
class KeptServer:
    """A server that outlives the command that started it.

    Attributes:
        pid: the process to look for.
        started: when it started (see `processes.process_started`), which tells a reused pid apart.
        port: where it listens on 127.0.0.1.
        log: the file that it writes to.
    """

    pid: int
    started: float | None
    port: int
    log: str

    @property
    def process(self) -> processes.Process:
        """The running process."""
        return processes.attach(self.pid, self.started, Path(self.log))

    @property
    def ui_url(self) -> str:
        """Where a browser finds the UI."""
        return f"http://{launch.HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """What `PREFECT_API_URL` would be."""
        return f"{self.ui_url}/api"


def status() -> KeptServer | None:
    """The kept server, or None when none is running (a state file left behind by a dead one counts as none)."""
    try:
        state = json.loads(_state_file().read_text())
        if state.pop("version") != STATE_VERSION:
            return None
        server = KeptServer(**state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # nothing kept, or a file that says nothing we can rely on
    return server if server.process.alive() else None


def running() -> KeptServer | None:
    """The kept server, which has to answer."""
    server = status()
    if server and not launch.answers(server.port):
        raise OrchestratorError(
            f"The Prefect server that `ostinato server start` keeps (pid {server.pid}, {server.ui_url}) does not answer.\n"
            f"Run `ostinato server stop`, then start it again or go on without it. Its log: {server.log}"
        )
    return server


def start(port: int = DEFAULT_PORT) -> KeptServer:
    """Start the kept server and wait until it answers; when one is running already, return that one, whatever its port.

    Raises:
        OrchestratorError: the port is taken, a run is using the history, or the server does not come up (with its log's end).
    """
    if server := running():
        return server
    if (history := History.take()) is None:
        raise OrchestratorError(
            f"{History.holder()} is recording into the history just now.\n"
            "Start the server when that has ended: what it recorded will be there."
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
            process.keep()  # last: until it is on record, it ends with this process
        except BaseException:
            process.stop()
            raise
        return server
    finally:
        history.release()


def stop() -> bool:
    """Stop the kept server. Returns whether there was one.

    Raises:
        OrchestratorError: it runs under another user, or does not end.
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
            raise OrchestratorError(f"The kept server (pid {server.pid}) does not end.")
    _state_file().unlink(missing_ok=True)
    return server is not None


def _refuse_taken(port: int) -> None:
    """Find out that a port is taken before a server boots for five seconds to find out."""
    try:
        with socket.create_server((launch.HOST, port)):
            return
    except OSError as error:
        what = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise OrchestratorError(f"Port {port} {what}. Choose another: ostinato server start --port N") from error


def _state_file() -> Path:
    return paths.home() / "prefect" / "server.json"
