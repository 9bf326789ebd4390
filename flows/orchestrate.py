"""Plays a run, a sweep or a pipeline as a Prefect flow on the right server: quietly, in its true state, nothing left behind.

`play`, `play_sweep` and `play_pipeline` are what runner.experiment looks up for ``execution.orchestrator=prefect``. Prefect is
imported inside, while a private server boots; its settings, logging and environment are the user's again afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import pkgutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from flows.servers import server
from runner.errors import OrchestratorError
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from uuid import UUID

    from prefect import Flow
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    from runner.experiment.experiment import Experiment
    from runner.pipelines.pipeline import Pipeline
    from runner.sweeps.sweep import Sweep

CANCEL_POLL_S = 2.0
"""How often a run asks whether somebody cancelled it in Prefect: nobody tells it."""
REACH_TIMEOUT_S = 15.0
DRAIN_TIMEOUT_S = 30.0


class Piece(Protocol):
    """What is played: an experiment, a sweep, a pipeline. Its flow finds it again in this process by its folder."""

    folder: Path
    name: str
    overrides: list[str]


async def play(experiment: Experiment, *, notify: Callable[[str], None]) -> None:
    """Play what the experiment owes as one flow run, a task a stage. Raises as `play_as` does."""
    await play_as("flows.experiment:experiment_flow", experiment, notify=notify)


async def play_sweep(sweep: Sweep, *, notify: Callable[[str], None]) -> None:
    """Play the cells that the sweep owes as one flow run, a task a cell. Raises as `play_as` does."""
    await play_as("flows.sweep:sweep_flow", sweep, notify=notify)


async def play_pipeline(pipeline: Pipeline, *, notify: Callable[[str], None]) -> None:
    """Do the stages of the pipeline as one flow run, a task a stage. Raises as `play_as` does."""
    await play_as("flows.pipeline:pipeline_flow", pipeline, notify=notify)


async def play_as(target: str, piece: Piece, *, notify: Callable[[str], None]) -> None:
    """Play as one run of a flow, whose parameters are the folder and the overrides.

    Args:
        target: the flow, ``module:name``; its module imports Prefect.
        piece: what is played.
        notify: is told, in a line for people, where the run can be watched and what went wrong on the side.

    Raises:
        OrchestratorError: no server could be had, or it was lost on the way.
        asyncio.CancelledError: the run was cancelled, by the caller or in Prefect; the flow run is CANCELLED.
        Exception: whatever a stage raised, as it was raised; the flow run is FAILED.
    """
    choice = server.resolve()
    private = server.PrivateServer() if choice.api_url is None else None
    try:
        with _environment():
            flow = _import(target)
            with (
                _settings(private.api_url if private else choice.api_url, own=choice.kind != "named"),
                _log_to(piece.folder / "run.log"),
            ):
                if private:
                    await private.ready()
                    notify(f"Prefect: {private.ui_url} shows this run while it lasts (later: ostinato server start)")
                else:
                    await _reach(choice)
                    notify(f"Prefect: {redact(choice.api_url or '')}, from {choice.source}")
                await _run(flow, piece, notify, private)
    finally:
        if private:
            await asyncio.to_thread(private.stop)


async def _run(flow: Flow[Any, Any], piece: Piece, notify: Callable[[str], None], private: server.PrivateServer | None) -> None:
    """Create the flow run, play it, and leave it in its true state."""
    import httpx
    from prefect import get_client
    from prefect.states import Cancelled, Pending

    try:
        async with get_client() as client:
            run = await client.create_flow_run(
                flow,
                name=piece.folder.name,
                parameters={"folder": str(piece.folder), "overrides": list(piece.overrides)},
                tags=["ostinato", piece.name],
                state=Pending(),
            )
            if private:
                private.plays(str(run.id))
            playing = asyncio.create_task(_play(flow, run))
            watching = asyncio.create_task(_cancel_when_told(client, run.id, playing, notify))
            try:
                await playing
            except asyncio.CancelledError:
                with contextlib.suppress(httpx.HTTPError):  # no server, no state: the run ends all the same
                    await client.set_flow_run_state(run.id, Cancelled(message="The run was interrupted."), force=True)
                raise
            finally:
                watching.cancel()
                await _drain(client, run.id, notify, wait=private is not None)
    except httpx.HTTPError as error:
        raise OrchestratorError(
            f"The Prefect server failed during the run: {redact(str(error)) or type(error).__name__}\n"
            "Rows that were finished are in the record. Run the same command again: it asks only what is still owed."
        ) from error


async def _play(flow: Flow[Any, Any], run: FlowRun) -> None:
    """Play the flow run in this task. Prefect pickles the exception of a failed flow to disk: here, to a folder that goes."""
    from prefect.flow_engine import run_flow_async

    with tempfile.TemporaryDirectory(prefix="ostinato-") as scratch:
        stored = flow.with_options(result_storage=Path(scratch))
        with _signals_left_alone():
            await run_flow_async(stored, flow_run=run, parameters=run.parameters)


async def _cancel_when_told(
    client: PrefectClient, run_id: UUID, playing: asyncio.Task[None], notify: Callable[[str], None]
) -> None:
    """Honour `prefect flow-run cancel`, which only sets a state: Prefect leaves it to us to see it."""
    import httpx

    while True:
        await asyncio.sleep(CANCEL_POLL_S)
        with contextlib.suppress(httpx.HTTPError):  # the flow itself finds out when the server is gone
            state = (await client.read_flow_run(run_id)).state
            if state and (state.is_cancelling() or state.is_cancelled()):
                notify("The run was cancelled in Prefect.")
                playing.cancel()
                return


async def _drain(client: PrefectClient, run_id: UUID, notify: Callable[[str], None], *, wait: bool) -> None:
    """Send what Prefect still has to say and, when the server is about to stop, wait until it has recorded every task's end."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    from flows.begun import take_begun

    for worker in (EventsWorker, APILogWorker):
        await cast("Awaitable[Any]", worker.drain_all(timeout=DRAIN_TIMEOUT_S))
    begun = take_begun(run_id)
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while wait and begun:
        tasks = await client.read_task_runs(flow_run_filter=this_run)
        begun -= {task.id for task in tasks if task.state and task.state.is_final()}
        if time.monotonic() > deadline:
            notify(f"Prefect's history shows {len(begun)} task(s) of this run as unfinished; the run's own record is complete.")
            return
        if begun:
            await asyncio.sleep(0.1)


async def _reach(choice: server.ServerChoice) -> None:
    """Make sure that the server somebody named is there, before anything is built on it.

    Raises:
        OrchestratorError: it does not answer, or not as Prefect does.
    """
    from prefect import get_client

    try:
        async with asyncio.timeout(REACH_TIMEOUT_S), get_client() as client:
            problem = await client.api_healthcheck()
    except Exception as error:  # noqa: BLE001 - the boundary to the user's server: whatever goes wrong, it cannot be used
        problem = error
    if problem:
        raise OrchestratorError(
            f"The Prefect server at {redact(choice.api_url or '')} does not answer ({_reason(problem)}). "
            f"It is named by {choice.source}.\n"
            "Start that server, or take the setting away and Ostinato starts one for the run,\n"
            "or run with execution.orchestrator=none."
        )


def _reason(problem: Exception) -> str:
    """The innermost cause in a few words: Prefect wraps it in its own."""
    cause: BaseException = problem
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return redact(f"{type(cause).__name__}: {cause}".rstrip(": "))


@contextlib.contextmanager
def connected(choice: server.ServerChoice, log: Path | None = None) -> Iterator[None]:
    """Prefect, pointed at a server that stays, for what is not a run: a lost connection is waited for.

    Args:
        choice: the server.
        log: where Prefect's lines go; None: nowhere.

    Raises:
        OrchestratorError: the server does not answer, or fails.
    """
    with _environment():
        import httpx

        _import("flows.experiment:experiment_flow")
        with (
            _settings(choice.api_url, own=choice.kind != "named", stays=True),
            _log_to(log or Path(os.devnull)),
        ):
            asyncio.run(_reach(choice))
            try:
                yield
            except httpx.HTTPError as error:
                raise OrchestratorError(f"The Prefect server failed: {redact(str(error)) or type(error).__name__}") from error


def _import(target: str) -> Flow[Any, Any]:
    """Import what the run needs of Prefect, and the flow; the first time costs more than a second."""
    for module in ("prefect.flow_engine", "prefect.events.worker"):
        importlib.import_module(module)
    flow: Flow[Any, Any] = pkgutil.resolve_name(target)
    return flow


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What Prefect can only be told by environment variables: no telemetry, no proxy to this machine, hands off our logging."""
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    ours = {"DO_NOT_TRACK": "1", "no_proxy": f"{direct},127.0.0.1" if direct else "127.0.0.1"}
    if "prefect" not in sys.modules:
        ours["PREFECT_LOGGING_SETTINGS_PATH"] = str(Path(__file__).with_name("logging.yml"))
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _settings(api_url: str | None, *, own: bool, stays: bool = False) -> Iterator[None]:
    """Point Prefect at the server.

    One of our own is not sent keys or headers that are meant for another; and as it does not come back once it is gone (unless it
    `stays`), a run is not kept waiting for it, which with Prefect's defaults takes four minutes.
    """
    from prefect import settings as prefect
    from prefect.events.clients import PrefectEventsClient
    from prefect.events.worker import EventsWorker

    values: dict[Any, Any] = {prefect.PREFECT_API_URL: api_url}
    if not own:
        with prefect.temporary_settings(values):
            yield
        return
    if not stays:
        values |= {prefect.PREFECT_CLIENT_MAX_RETRIES: 2}
        EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=1)
    elsewhere = {prefect.PREFECT_API_KEY, prefect.PREFECT_API_AUTH_STRING, prefect.PREFECT_CLIENT_CUSTOM_HEADERS}
    try:
        with prefect.temporary_settings(values, restore_defaults=elsewhere):
            yield
    finally:
        EventsWorker.set_client_override(None)


class _Redacted(logging.Formatter):
    """Lines without secrets, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


@contextlib.contextmanager
def _log_to(file: Path) -> Iterator[None]:
    """Write Prefect's lines to the run's log and to the server, never to the terminal."""
    from prefect.logging.handlers import APILogHandler

    to_file = logging.FileHandler(file, encoding="utf-8", delay=True)
    to_file.setFormatter(_Redacted("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers: dict[str, list[logging.Handler]] = {name: [to_file] for name in ("prefect", "prefect._internal")}
    loggers |= {name: [to_file, APILogHandler()] for name in ("prefect.flow_runs", "prefect.task_runs")}
    loggers |= {name: [logging.NullHandler()] for name in ("EventsWorker", "APILogWorker")}  # they count what is still to be sent
    before = [(log, log.handlers, log.propagate, log.level) for log in map(logging.getLogger, loggers)]
    complains, logging.raiseExceptions = logging.raiseExceptions, False  # else Prefect tells stderr when it cannot send a line
    for log, _, _, level in before:
        log.handlers, log.propagate = loggers[log.name], False
        if log.name == "prefect" and level == logging.NOTSET:
            log.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.raiseExceptions = complains
        for log, handlers, propagate, level in before:
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)
        to_file.close()


@contextlib.contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Keep Prefect's engine from taking SIGTERM while a flow runs: its handler raises in the middle of the event loop."""
    from prefect import flow_engine

    namespace = vars(flow_engine)
    theirs, namespace["capture_sigterm"] = namespace.get("capture_sigterm"), contextlib.nullcontext
    try:
        yield
    finally:
        namespace["capture_sigterm"] = theirs
