"""Start the process of a Prefect server, and wait until it answers. It listens on 127.0.0.1."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from flows.servers import schema
from runner.errors import OrchestratorError
from runner.network.client import request
from runner.secrets import redact
from runner.system import processes

HOST = "127.0.0.1"
POLL_S = 0.05
START_TIMEOUT_S = 120.0
"""Prefect may have to create the database (15 s on two slow cores); other starts take about 5 s."""

_OTHERS_RUNS = ("SCHEDULER", "LATE_RUNS", "FOREMAN", "CANCELLATION_CLEANUP", "PAUSE_EXPIRATIONS", "REPOSSESSOR", "TRIGGERS")

_RECORDER = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",  # seconds; less is cut to 0, a busy loop
}
"""Settings by which a server records several tasks in one write."""


class Address:
    """The addresses of a server at `port` of this machine."""

    port: int

    @property
    def ui_url(self) -> str:
        """Return the URL of the UI, which works while the server runs."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """Return the URL of the API, as for `PREFECT_API_URL`."""
        return f"{self.ui_url}/api"


def start(database: Path, port: int, *, log: Path, private: bool, many: bool = True) -> processes.Process:
    """Start a server, which ends with this process unless it is kept.

    Args:
        database: its SQLite file.
        port: where it listens.
        log: the file that it writes to.
        private: whether it serves one run alone: then it runs no schedules and leaves other runs alone.
        many: whether it records several tasks in one write, which takes a third of the CPU, and is up to a second late.
    """
    env = _environment(database, port, private=private)
    if many:
        env |= _RECORDER
    if schema.prepared(database):
        env["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = "0"
    return processes.start(_command(port), log=log, env=env)


def is_up(process: processes.Process, port: int, deadline: float) -> bool:
    """Return whether a server that was started answers.

    Raises:
        OrchestratorError: it ended, or the deadline (monotonic seconds) has passed.
    """
    if process.alive() and answers(port):
        return True
    if process.alive() and time.monotonic() < deadline:
        return False
    what = f"did not answer within {START_TIMEOUT_S:.0f} s" if process.alive() else "ended instead of starting"
    log = redact(process.log_tail()) or "(empty)"
    raise OrchestratorError(
        f"The Prefect server {what}. The end of its log:\n{log}\nTry again, or run with execution.orchestrator=none."
    )


def answers(port: int) -> bool:
    """Return whether a Prefect server answers on this port of the loopback. No proxy is used."""
    try:
        return request("GET", f"http://{HOST}:{port}/api/health", timeout_s=5, proxies=False).body == b"true"
    except OSError:
        return False


def _command(port: int) -> list[str]:
    """Return the server's command, without Prefect's CLI, which takes a second more. The current folder is not imported from."""
    options = ["--host", HOST, "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    ours = ["--app-dir", str(Path(__file__).parents[2]), "--factory", "flows.servers.boot:application"]
    return [sys.executable, "-P", "-m", "uvicorn", *ours, *options]


def _environment(database: Path, port: int, *, private: bool) -> dict[str, str]:
    """Return the server's environment: ours, without the user's Prefect settings, which concern other servers."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    ours = {
        "PREFECT_HOME": str(database.parent),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",  # else the page calls port 4200 and stays blank
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(database.parent / "ui"),  # site-packages may be read-only
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "0",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",  # no other pages
    }
    service = "PREFECT_SERVER_SERVICES"
    if private:  # schedules, other runs and types of blocks are left to a server that stays
        ours |= {f"{service}_{name}_ENABLED": "0" for name in _OTHERS_RUNS}
        ours |= {"PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "0", "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "0"}
    else:
        # with files, a run keeps its hold on its schedule while the server restarts
        ours["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] = "prefect.server.concurrency.lease_storage.filesystem"
        ours["PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS"] = "5"  # how often a queued run asks; 30 by default
    return inherited | ours
