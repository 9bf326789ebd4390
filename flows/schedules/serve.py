"""`ostinato serve`: a worker that starts the runs of schedules, each in its own process, and leaves none behind when it ends.

It uses a work pool of Prefect's type ``process`` rather than Prefect's `serve`: schedules that are applied later are served too,
stopping the worker does not pause them, and ``prefect worker start --pool ostinato`` runs them as well, without
``schedule.catch_up``. The loop is ours: Prefect's own gives up when the server is away for a few minutes, and cancels its runs
when it is stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.connection import connected
from flows.schedules.catch_up import pass_over
from flows.schedules.deployments import FLOW, POOL, adopt, ensure_pool
from flows.servers import kept
from flows.servers.choice import ServerChoice, resolve
from flows.servers.databases import folder
from runner.errors import first_of
from runner.secrets import redact

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from flows.schedules.worker import Worker


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Play what the schedules say (`ostinato schedule apply`), each run in its own process, until it is stopped. "
        "Uses the server that PREFECT_API_URL or your Prefect profile names, else the one that `ostinato server start` keeps, "
        "which is started if it is not running. Secrets are read from this command's environment. Ctrl-C once: start no more "
        "runs, and wait for current ones; twice: cancel those, and wait for their records; three times: do not wait. Schedules "
        "stay active: schedule.catch_up decides about runs that are due while no worker serves them."
    )
    parser.add_argument("--limit", type=_positive, default=8, metavar="N", help="runs at the same time (default: 8)")


def main(args: argparse.Namespace) -> int:
    """Serve until a signal arrives. Returns 0, or 130 if runs were cancelled.

    Raises:
        OrchestratorError: no server is available.
    """
    choice = resolve()
    if choice.api_url is None:
        kept.start()
        choice = resolve()
    if choice.kind == "kept":  # these are for another server, and runs inherit this environment
        for name in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_CLIENT_CUSTOM_HEADERS"):
            os.environ.pop(name, None)
    log = folder() / "serve.log"
    with tempfile.TemporaryDirectory(prefix="ostinato-") as scratch, connected(choice, log):
        from prefect import settings

        theirs: dict[Any, Any] = {  # for the processes of the runs: the worker passes its settings on
            settings.PREFECT_LOCAL_STORAGE_PATH: scratch,  # Prefect pickles what failed runs raise: here, to a temporary folder
            settings.PREFECT_LOGGING_SETTINGS_PATH: Path(__file__).with_name("scheduled.yml"),
        }
        # Prefect prints the errors of its observers while the server is away
        with settings.temporary_settings(theirs), log.open("a") as lines, contextlib.redirect_stdout(lines):
            warnings.simplefilter("ignore", RuntimeWarning)
            return asyncio.run(_serve(choice, args.limit))


async def _serve(choice: ServerChoice, limit: int) -> int:
    from prefect import get_client

    from flows.schedules.worker import patient

    async with get_client() as client:
        await ensure_pool(client)
        if adopted := await adopt(client):
            _say(f"{adopted:,} schedules were applied by another version of ostinato; this version runs them from now on")
    service = _Service(limit)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: logging.getLogger("prefect").error("%s", context))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, service.stop)
    _say(f"serving the schedules of {redact(choice.api_url or '')}, from {choice.source}")
    with patient():
        return await service.run()


class _Service:
    """Run what is due until it is stopped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stopping = asyncio.Event()
        self._worker: Worker | None = None
        self._playing: asyncio.Task[None] | None = None
        self._cancelling: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Run until `stop`. Returns 0, or 130 if runs were cancelled."""
        self._playing = asyncio.create_task(self._work())
        try:
            await self._playing
        except asyncio.CancelledError:
            return 130
        return 130 if self._cancelling else 0

    def stop(self) -> None:
        """Handle a signal: the first waits for current runs, the second cancels them, the third leaves them."""
        if not self._stopping.is_set():
            self._stopping.set()
            _say("stopping: waiting for current runs; press Ctrl-C again to cancel them")
        elif not self._cancelling:
            self._cancelling = asyncio.create_task(self._cancel())
        elif self._playing:
            self._playing.cancel()

    async def _cancel(self) -> None:
        import httpx

        if self._worker is None or not self._worker.playing:
            return
        _say(f"cancelling {len(self._worker.playing):,} runs; press Ctrl-C again to stop waiting")
        try:
            await self._worker.cancel()
        except httpx.HTTPError as error:
            _say(f"the server cannot be reached ({type(error).__name__}); the runs are ended without telling it")
            if self._playing:
                self._playing.cancel()

    async def _work(self) -> None:
        """Look for runs that are due until `stop`. Leaving the worker waits for current runs."""
        import httpx
        from prefect import get_client
        from prefect.settings import get_current_settings

        from flows.schedules.worker import Worker

        while not self._stopping.is_set():
            self._worker = Worker(work_pool_name=POOL, name=f"{socket.gethostname()}-{os.getpid()}", limit=self._limit)
            try:
                async with get_client() as client, self._worker:
                    await self._poll(self._worker, client)
            except* httpx.HTTPError as group:  # raised while the worker was set up
                _say(f"the server failed, the worker starts again: {redact(str(first_of(group)))}")
                await asyncio.sleep(get_current_settings().worker.query_seconds)

    async def _poll(self, worker: Worker, client: PrefectClient) -> None:
        import httpx
        from prefect.settings import get_current_settings

        lost = False
        while not self._stopping.is_set():
            try:
                if passed := await pass_over(client, FLOW):
                    _say(f"{passed:,} missed runs were cancelled (schedule.catch_up)")
                await worker.sync_with_backend()
                await worker.get_and_submit_flow_runs()
            except httpx.HTTPError as error:
                if not lost:
                    _say(f"the server does not answer ({type(error).__name__}); waiting for it")
                lost = True
            else:
                if lost:
                    _say("the server answers again")
                lost = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), get_current_settings().worker.query_seconds)


def _positive(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of runs: 1 or more")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
