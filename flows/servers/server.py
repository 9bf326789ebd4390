"""Which Prefect server a run uses, and the two kinds that Ostinato starts: kept (`ostinato server start`) and private.

Both listen on 127.0.0.1 and write the history of flows/servers/databases.py, so that what a private server recorded is seen
in the UI of a kept one.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import os
import socket
import sys
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from flows.servers.databases import History, folder
from runner.errors import OrchestratorError
from runner.secrets import redact
from runner.system import files, paths, processes

DEFAULT_PORT = 4200
STATE_VERSION = 1
START_TIMEOUT_S = 120.0
"""The first start makes the database (15 s on two slow cores); later ones take about 5 s."""

_HOST = "127.0.0.1"
_POLL_S = 0.05
_STOP_TIMEOUT_S = 10.0
_OTHERS_RUNS = ("SCHEDULER", "LATE_RUNS", "FOREMAN", "CANCELLATION_CLEANUP", "PAUSE_EXPIRATIONS", "REPOSSESSOR", "TRIGGERS")


@dataclass(frozen=True)
class ServerChoice:
    """The server a run is to use.

    Attributes:
        kind: ``named`` by the user, ``kept`` by `ostinato server start`, or ``private``: to be started for the run.
        api_url: the API's address, ending in ``/api``; None for a private server, which has none yet.
        source: where the choice comes from, for messages.
    """

    kind: Literal["named", "kept", "private"]
    api_url: str | None
    source: str


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
        return f"http://{_HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """What `PREFECT_API_URL` would be."""
        return f"{self.ui_url}/api"


def resolve() -> ServerChoice:
    """Decide which server to use: the one the user names, else the kept one, else a private one. Starts nothing.

    Raises:
        OrchestratorError: the kept server is running but does not answer.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        return ServerChoice("named", url.rstrip("/"), "the environment variable PREFECT_API_URL")
    if choice := _from_profile():
        return choice
    if server := _running():
        return ServerChoice("kept", server.api_url, "`ostinato server start`")
    return ServerChoice("private", None, "a private server for the time of the run")


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


def start_kept(port: int = DEFAULT_PORT) -> KeptServer:
    """Start the kept server and wait until it answers; when one is running already, return that one, whatever its port.

    Raises:
        OrchestratorError: the port is taken, a run is using the history, or the server does not come up (with its log's end).
    """
    if server := _running():
        return server
    if (history := History.take()) is None:
        raise OrchestratorError(
            f"{History.holder()} is recording into the history just now.\n"
            "Start the server when that has ended: what it recorded will be there."
        )
    try:
        _refuse_taken(port)
        log = folder() / "server.log"
        process = processes.start(_command(port), log=log, env=_environment(history.database, port, private=False))
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _up(process, port, deadline):
                time.sleep(_POLL_S)
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


def stop_kept() -> bool:
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


class PrivateServer:
    """A child server on a free port for the time of one run. It boots from here on, and dies with this process.

    Raises:
        OrchestratorError: the folder under `OSTINATO_HOME` cannot be written.
    """

    def __init__(self) -> None:
        self._history = History.take_any()
        try:
            self.port = processes.free_port()
            self._history.describe(self._who())
            log = self._history.database.with_suffix(".log")
            env = _environment(self._history.database, self.port, private=True)
            self._process = processes.start(_command(self.port), log=log, env=env)
        except BaseException:
            self._history.release()
            raise

    @property
    def ui_url(self) -> str:
        """Where a browser finds the UI while the run lasts."""
        return f"http://{_HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """What `PREFECT_API_URL` is for the run."""
        return f"{self.ui_url}/api"

    async def ready(self) -> None:
        """Wait until the server answers.

        Raises:
            OrchestratorError: it died, or took longer than `START_TIMEOUT_S`; the message shows the end of its log.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _up(self._process, self.port, deadline):  # noqa: ASYNC110 - another process: there is no event to await
            await asyncio.sleep(_POLL_S)
        await asyncio.to_thread(self._history.bury, self.port)

    def plays(self, flow_run: str) -> None:
        """Note the id of the flow run that ends when this process does, should it be killed."""
        self._history.describe(self._who(), flow_run)

    def stop(self) -> None:
        """Stop the server and free its database. Idempotent."""
        lost = not self._process.alive()  # it could not be told how the run ended: the next server that has the database is
        self._process.stop()
        self._history.release(ended=not lost)

    def _who(self) -> str:
        return f"A run (pid {os.getpid()}, its stages at {self.ui_url})"


def _running() -> KeptServer | None:
    """The kept server, which has to answer."""
    server = status()
    if server and not _answers(server.port):
        raise OrchestratorError(
            f"The Prefect server that `ostinato server start` keeps (pid {server.pid}, {server.ui_url}) does not answer.\n"
            f"Run `ostinato server stop`, then start it again or go on without it. Its log: {server.log}"
        )
    return server


def _from_profile() -> ServerChoice | None:
    """The server that Prefect's active profile names. Read from its file, as importing Prefect costs more than a second."""
    default = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "profiles.toml"
    file = Path(os.environ.get("PREFECT_PROFILES_PATH") or default)
    try:
        content = tomllib.loads(file.read_text())
        name = os.environ.get("PREFECT_PROFILE") or content["active"]
        url = content["profiles"][name]["PREFECT_API_URL"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no profile names a server; Prefect itself complains about a file it cannot read
    return ServerChoice("named", str(url).rstrip("/"), f"Prefect's profile {name!r} ({file})")


def _command(port: int) -> list[str]:
    """Prefect's server without Prefect's own CLI, which costs a second more. Nothing is imported from the current folder."""
    options = ["--host", _HOST, "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    ours = ["--app-dir", str(Path(__file__).parents[2]), "--factory", "flows.servers.boot:application"]
    return [sys.executable, "-P", "-m", "uvicorn", *ours, *options]


def _environment(database: Path, port: int, *, private: bool) -> dict[str, str]:
    """The server's environment: ours, less every Prefect setting of the user's, which are about other servers."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    ours = {
        "PREFECT_HOME": str(database.parent),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_UI_API_URL": f"http://{_HOST}:{port}/api",  # else the page calls port 4200 and stays blank
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(database.parent / "ui"),  # site-packages may be read-only
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "0",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{_HOST}:{port},http://localhost:{port}",  # not every page of the web
    }
    service = "PREFECT_SERVER_SERVICES"
    if private:  # schedules and other runs are the business of a server that stays
        ours |= {f"{service}_{name}_ENABLED": "0" for name in _OTHERS_RUNS}
    else:
        # with files, a run that plays while the server is started anew keeps its hold on its schedule
        ours["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] = "prefect.server.concurrency.lease_storage.filesystem"
        ours["PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS"] = "5"  # a run that queues asks again; 30 by default
        # one write for many tasks costs a third of the CPU; a private server has few tasks, and must not keep the run waiting
        recorder = {
            "BATCH_SIZE": "200",
            "READ_BATCH_SIZE": "100",
            "FLUSH_INTERVAL": "1",
        }  # seconds; less than 1 is cut to a busy 0
        ours |= {f"{service}_TASK_RUN_RECORDER_{name}": value for name, value in recorder.items()}
    return inherited | ours


def _up(process: processes.Process, port: int, deadline: float) -> bool:
    """Whether the server that was started answers by now.

    Raises:
        OrchestratorError: it died, or the deadline (monotonic seconds) has passed.
    """
    if process.alive() and _answers(port):
        return True
    if process.alive() and time.monotonic() < deadline:
        return False
    what = f"did not answer within {START_TIMEOUT_S:.0f} s" if process.alive() else "ended instead of starting"
    log = redact(process.log_tail()) or "(empty)"
    raise OrchestratorError(
        f"The Prefect server {what}. The end of its log:\n{log}\nTry again, or run with execution.orchestrator=none."
    )


def _answers(port: int) -> bool:
    """Whether a Prefect server answers on this port of the loopback (no proxy in between)."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().read() == b"true"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _refuse_taken(port: int) -> None:
    """Find out that a port is taken before a server boots for five seconds to find out."""
    try:
        with socket.create_server((_HOST, port)):
            return
    except OSError as error:
        what = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise OrchestratorError(f"Port {port} {what}. Choose another: ostinato server start --port N") from error


def _state_file() -> Path:
    return paths.home() / "prefect" / "server.json"
