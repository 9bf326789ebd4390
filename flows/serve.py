"""`ostinato serve`: the worker that starts what schedules say, each run in a process of its own, and ends without leaving one.

A work pool of Prefect's type ``process`` rather than Prefect's `serve`: schedules that are applied later are served too, stopping
the worker pauses none of them, and ``prefect worker start --pool ostinato`` on another machine does the same. The loop is ours,
as Prefect's own gives up on a server that is gone for a few minutes, and cancels what it has started when it is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

from flows import server
from flows.deployments import POOL, ensure_pool
from flows.orchestrate import connected
from runner.secrets import redact

if TYPE_CHECKING:
    import argparse

    from prefect.workers.process import ProcessWorker


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Play what the schedules say (`ostinato schedule apply`), each run in a process of its own, until it is stopped. "
        "Uses the server that PREFECT_API_URL or your Prefect profile names, else the one that `ostinato server start` keeps, "
        "which it starts when it is not there. Secrets are read from this command's environment. Ctrl-C once: start no more, "
        "and wait for the runs that play; twice: stop those too. Schedules stay active: schedule.catch_up says what becomes of "
        "runs that are due while nothing serves them."
    )
    parser.add_argument("--limit", type=int, metavar="N", help="runs that may play at the same time (default: no bound)")


def main(args: argparse.Namespace) -> int:
    """Serve until a signal comes. Returns 0, or 130 when runs were stopped.

    Raises:
        OrchestratorError: no server could be had.
    """
    choice = server.resolve()
    if choice.api_url is None:
        server.start_kept(server.DEFAULT_PORT)
        choice = server.resolve()
    if choice.kind == "kept":  # what is meant for another server; runs inherit this environment
        for name in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_CLIENT_CUSTOM_HEADERS"):
            os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="ostinato-") as scratch, connected(choice):
        os.environ["PREFECT_LOCAL_STORAGE_PATH"] = scratch
        return asyncio.run(_serve(choice, args.limit))


async def _serve(choice: server.ServerChoice, limit: int | None) -> int:
    from prefect import get_client
    from prefect.workers.process import ProcessWorker

    async with get_client() as client:
        await ensure_pool(client)
    worker = ProcessWorker(work_pool_name=POOL, name=f"{socket.gethostname()}-{os.getpid()}", limit=limit)
    stopping = asyncio.Event()
    playing = asyncio.ensure_future(_work(worker, stopping))

    def stop() -> None:
        if stopping.is_set():
            playing.cancel()
        else:
            stopping.set()
            _say("stopping: runs that play are waited for; press Ctrl-C again to stop them")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    _say(f"serving the schedules of {redact(choice.api_url or '')}, from {choice.source}")
    try:
        await playing
    except asyncio.CancelledError:
        return 130
    return 0


async def _work(worker: ProcessWorker, stopping: asyncio.Event) -> None:
    """Look for runs that are due until it is time to stop; leaving the worker waits for those that play."""
    import httpx
    from prefect.settings import get_current_settings

    poll_s = get_current_settings().worker.query_seconds
    lost = False
    async with worker:
        while not stopping.is_set():
            try:
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
                await asyncio.wait_for(stopping.wait(), poll_s)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
