"""Run a Prefect server for the time of one run."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime

from flows.servers import launch
from flows.servers.databases import History
from runner.system import processes

MANY = 20
"""Task runs from which a server records several at once. Its last ones then wait for up to a second."""


class PrivateServer(launch.Address):
    """A child server on a free port for the time of one run. It boots in the background, and ends with this process.

    Args:
        tasks: how many task runs it will record, as far as it is known.

    Raises:
        OrchestratorError: the folder under `OSTINATO_HOME` cannot be written.
    """

    def __init__(self, tasks: int = 1) -> None:
        self._began = datetime.now(UTC)
        self._history = History.take_any()
        try:
            self.port = processes.free_port()
            self._history.describe(self._who())
            log = self._history.database.with_suffix(".log")
            self._process = launch.start(self._history.database, self.port, log=log, private=True, many=tasks > MANY)
        except BaseException:
            self._history.release()
            raise

    async def ready(self) -> None:
        """Wait until the server answers.

        Raises:
            OrchestratorError: it ended, or took longer than `launch.START_TIMEOUT_S`; the message shows the end of its log.
        """
        deadline = time.monotonic() + launch.START_TIMEOUT_S
        while not launch.is_up(self._process, self.port, deadline):  # noqa: ASYNC110 - another process: there is no event to await
            await asyncio.sleep(launch.POLL_S)
        await asyncio.to_thread(self._history.bury, self.port)

    def plays(self, flow_run: str) -> None:
        """Record the id of the flow run that ends with this process, in case the process is killed, and when it truly began."""
        self._history.describe(self._who(), flow_run)
        self._history.date(flow_run, self._began)

    def stop(self) -> None:
        """Stop the server and free its database. Idempotent."""
        lost = not self._process.alive()  # it could not record how the run ended: the next server of the database does
        self._process.stop()
        self._history.release(ended=not lost)

    def _who(self) -> str:
        return f"A run (pid {os.getpid()}, its stages at {self.ui_url})"
