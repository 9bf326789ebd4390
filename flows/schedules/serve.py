"""`ostinato serve`: the worker that starts what schedules say, each run in a process of its own, and ends without leaving one.

A work pool of Prefect's type ``process`` rather than Prefect's `serve`: schedules that are applied later are served too, stopping
the worker pauses none of them, and ``prefect worker start --pool ostinato`` plays them as well, without ``schedule.catch_up``.
The loop is ours, as Prefect's own gives up on a server that is gone for a few minutes, and cancels what it has started when it is
stopped.
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
from runner.experiment.experiment import first_of
from runner.secrets import redact

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from flows.schedules.worker import Worker


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Play what the schedules say (`ostinato schedule apply`), each run in a process of its own, until it is stopped. "
        "Uses the server that PREFECT_API_URL or your Prefect profile names, else the one that `ostinato server start` keeps, "
        "which it starts when it is not there. Secrets are read from this command's environment. Ctrl-C once: start no more, "
        "and wait for the runs that play; twice: cancel those, and wait for their records; three times: wait no more. Schedules "
        "stay active: schedule.catch_up says what becomes of runs that are due while nothing serves them."
    )
    parser.add_argument(
        "--limit", type=_positive, default=8, metavar="N", help="runs that may play at the same time (default: 8)"
    )


def main(args: argparse.Namespace) -> int:
    """Serve until a signal comes. Returns 0, or 130 when runs were stopped.

    Raises:
        OrchestratorError: no server could be had.
    """
    choice = resolve()
    if choice.api_url is None:
        kept.start()
        choice = resolve()
    if choice.kind == "kept":  # what is meant for another server; runs inherit this environment
        for name in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_CLIENT_CUSTOM_HEADERS"):
            os.environ.pop(name, None)
    log = folder() / "serve.log"
    with tempfile.TemporaryDirectory(prefix="ostinato-") as scratch, connected(choice, log):
        from prefect import settings

        theirs: dict[Any, Any] = {  # of the processes of the runs: the worker hands its settings on
            settings.PREFECT_LOCAL_STORAGE_PATH: scratch,  # Prefect pickles what failed runs raise: here, to a folder that goes
            settings.PREFECT_LOGGING_SETTINGS_PATH: Path(__file__).with_name("scheduled.yml"),
        }
        # Prefect prints what its observers run into when the server is away
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
    """Plays what is due until it is stopped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stopping = asyncio.Event()
        self._worker: Worker | None = None
        self._playing: asyncio.Task[None] | None = None
        self._cancelling: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Returns 0, or 130 when runs were stopped."""
        self._playing = asyncio.create_task(self._work())
        try:
            await self._playing
        except asyncio.CancelledError:
            return 130
        return 130 if self._cancelling else 0

    def stop(self) -> None:
        """What a signal does: the first time wait for what plays, the second time cancel it, the third time leave it."""
        if not self._stopping.is_set():
            self._stopping.set()
            _say("stopping: runs that play are waited for; press Ctrl-C again to stop them")
        elif not self._cancelling:
            self._cancelling = asyncio.create_task(self._cancel())
        elif self._playing:
            self._playing.cancel()

    async def _cancel(self) -> None:
        import httpx

        if self._worker is None or not self._worker.playing:
            return
        _say(f"stopping {len(self._worker.playing):,} runs; press Ctrl-C again to wait no more")
        try:
            await self._worker.cancel()
        except httpx.HTTPError as error:
            _say(f"the server cannot be told ({type(error).__name__}); the runs are ended, and it does not know of it")
            if self._playing:
                self._playing.cancel()

    async def _work(self) -> None:
        """Look for runs that are due until it is time to stop; leaving the worker waits for those that play."""
        import httpx
        from prefect import get_client
        from prefect.settings import get_current_settings

        from flows.schedules.worker import Worker

        while not self._stopping.is_set():
            self._worker = Worker(work_pool_name=POOL, name=f"{socket.gethostname()}-{os.getpid()}", limit=self._limit)
            try:
                async with get_client() as client, self._worker:
                    await self._poll(self._worker, client)
            except* httpx.HTTPError as group:  # while it was set up
                _say(f"the server failed, the worker begins anew: {redact(str(first_of(group)))}")
                await asyncio.sleep(get_current_settings().worker.query_seconds)

    async def _poll(self, worker: Worker, client: PrefectClient) -> None:
        import httpx
        from prefect.settings import get_current_settings

        lost = False
        while not self._stopping.is_set():
            try:
                if passed := await pass_over(client, FLOW):
                    _say(f"{passed:,} runs were missed, and are not played any more (schedule.catch_up)")
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
