"""Lock the databases of Ostinato's Prefect servers, one server each, and mark runs that were killed as crashed.

The first, ``$OSTINATO_HOME/prefect/prefect.db``, is the history that the UI of the kept server shows. SQLite needs one server per
file, so a process that starts a server holds a lock on its file. Concurrent runs record into ``prefect-2.db`` and so on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from datetime import UTC
from typing import IO, TYPE_CHECKING, Any

from runner.errors import OrchestratorError
from runner.network.client import request
from runner.system import files, paths

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_BUSY_S = 10.0
"""How long the server may be writing to the database."""


def folder() -> Path:
    """Return the folder of the databases, the logs and the state of the kept server, readable by this user only.

    Raises:
        OrchestratorError: it cannot be created.
    """
    try:
        return paths.private(paths.home() / "prefect")
    except OSError as error:
        raise _unwritable(error) from error


class History:
    """The lock of one server on one database. It is an operating system's lock, so it ends with the process that took it.

    The lock file names its holder and the current flow run. A holder empties it at the end, so remaining content means that the
    process or its server was killed.

    Attributes:
        database: the SQLite file.
    """

    def __init__(self, database: Path, lock: IO[str]) -> None:
        self.database = database
        self._lock = lock
        lock.seek(0)
        self._abandoned = _flow_run(lock.read())

    @classmethod
    def take(cls, number: int = 1) -> History | None:
        """Lock the database of that number (1 is the history that the UI shows). Returns None if another process holds it.

        Raises:
            OrchestratorError: the folder cannot be written.
        """
        database = folder() / ("prefect.db" if number == 1 else f"prefect-{number}.db")
        try:
            lock = database.with_suffix(".lock").open("a+")
        except OSError as error:
            raise _unwritable(error) from error
        if not files.lock(lock.fileno()):
            lock.close()
            return None
        return cls(database, lock)

    @classmethod
    def take_any(cls) -> History:
        """Lock the first database that no other process holds."""
        return next(history for number in itertools.count(1) if (history := cls.take(number)))

    @staticmethod
    def holder() -> str:
        """Describe who holds the history that the UI shows."""
        try:
            return str(json.loads((folder() / "prefect.lock").read_text())["who"])
        except (OSError, ValueError, KeyError, TypeError):
            return "Another server"

    def describe(self, who: str, flow_run: str | None = None) -> None:
        """Write who holds the database, and the flow run that ends with this process, to the lock file."""
        self._lock.truncate(0)
        json.dump({"who": who, "flow_run": flow_run}, self._lock)
        self._lock.flush()

    def date(self, flow_run: str, began: datetime) -> None:
        """Say when a flow run began that Prefect has just learned of: its API takes no times. Prefect keeps a start it finds."""
        times = [began.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")] * 2
        open_history = contextlib.closing(sqlite3.connect(self.database, timeout=_BUSY_S))
        with contextlib.suppress(sqlite3.Error), open_history as history, history:
            history.execute("UPDATE flow_run SET start_time = ?, expected_start_time = ? WHERE id = ?", [*times, flow_run])

    def bury(self, port: int) -> None:
        """Mark what an earlier holder left running as crashed, through the server that now has the database.

        Args:
            port: where that server listens on 127.0.0.1.
        """
        run, self._abandoned = self._abandoned, None
        if run is None:
            return
        unfinished = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        crashed = {"state": {"type": "CRASHED", "message": "The process of this run, or its server, was killed."}, "force": True}
        for task in _post(port, "task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "task_runs": unfinished}):
            _post(port, f"task_runs/{task['id']}/set_state", crashed)
        for flow in _post(port, "flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}, **unfinished}}):
            _post(port, f"flow_runs/{flow['id']}/set_state", crashed)

    def release(self, *, ended: bool = True) -> None:
        """Unlock the database. Idempotent. Unless the flow run `ended`, the lock file keeps it for the next holder to `bury`."""
        if not self._lock.closed:
            if ended:
                self._lock.truncate(0)
            self._lock.close()


def _flow_run(left_behind: str) -> str | None:
    try:
        return str(json.loads(left_behind)["flow_run"] or "") or None
    except (ValueError, KeyError, TypeError):
        return None


def _post(port: int, path: str, body: dict[str, Any]) -> Any:
    headers, content = {"Content-Type": "application/json"}, json.dumps(body).encode()
    reply = request("POST", f"http://127.0.0.1:{port}/api/{path}", headers=headers, body=content, timeout_s=30, proxies=False)
    return json.loads(reply.body)


def _unwritable(error: OSError) -> OrchestratorError:
    return OrchestratorError(
        f"Prefect's history cannot be kept in {paths.home() / 'prefect'}: {error.strerror or error}.\n"
        "Set OSTINATO_HOME to a folder that you can write, or run with execution.orchestrator=none."
    )
