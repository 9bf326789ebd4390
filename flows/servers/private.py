"""Run a Prefect server for the time of one run."""

from __future__ import annotations

import asyncio
import os
import time

from flows.servers import launch
from flows.servers.databases import History
from runner.system import processes


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
            self._process = launch.start(self._history.database, self.port, log=log, private=True)
        except BaseException:
            self._history.release()
            raise

    @property
    def ui_url(self) -> str:
        """Where a browser finds the UI while the run lasts."""
        return f"http://{launch.HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """What `PREFECT_API_URL` is for the run."""
        return f"{self.ui_url}/api"

    async def ready(self) -> None:
        """Wait until the server answers.

        Raises:
            OrchestratorError: it died, or took longer than `launch.START_TIMEOUT_S`; the message shows the end of its log.
        """
        deadline = time.monotonic() + launch.START_TIMEOUT_S
        while not launch.is_up(self._process, self.port, deadline):  # noqa: ASYNC110 - another process: there is no event to await
            await asyncio.sleep(launch.POLL_S)
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
