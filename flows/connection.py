"""Import Prefect and point it at a server, for a run or for a command."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import quiet
from runner.errors import OrchestratorError
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect import Flow

    from flows.servers.choice import ServerChoice

REACH_TIMEOUT_S = 15.0
"""How long a server may take to answer before it counts as unreachable."""


@contextlib.contextmanager
def connected(choice: ServerChoice, log: Path | None = None) -> Iterator[None]:
    """Point Prefect at a server that stays, for a command that is not a run. A lost connection is retried, not given up.

    Args:
        choice: the server.
        log: where Prefect's lines go; None: nowhere.

    Raises:
        OrchestratorError: the server does not answer, or fails.
    """
    with quiet.environment():
        import httpx

        import_flow("flows.experiment:experiment_flow")
        with (
            pointed_at(choice.api_url, own=choice.kind != "named", stays=True),
            quiet.log_to(log or Path(os.devnull)),
        ):
            asyncio.run(reach(choice))
            try:
                yield
            except httpx.HTTPError as error:
                raise OrchestratorError(f"The Prefect server failed: {redact(str(error)) or type(error).__name__}") from error


def import_flow(target: str) -> Flow[Any, Any]:
    """Import a flow (``module:name``) and the parts of Prefect that a run needs. The first time takes more than a second."""
    for module in ("prefect.flow_engine", "prefect.events.worker"):
        importlib.import_module(module)
    flow: Flow[Any, Any] = pkgutil.resolve_name(target)
    return flow


@contextlib.contextmanager
def pointed_at(api_url: str | None, *, own: bool, stays: bool = False) -> Iterator[None]:
    """Point Prefect's settings at a server.

    Args:
        api_url: the server's API.
        own: whether Ostinato started the server. Keys and headers meant for another server are not sent to it.
        stays: whether the server comes back after a restart. A private one does not, so a run does not wait for it: with
            Prefect's defaults that would take four minutes.
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


async def reach(choice: ServerChoice) -> None:
    """Make sure that a server named by the user answers, before anything is built on it.

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
            "Start that server, or remove the setting and Ostinato starts one for the run,\n"
            "or run with execution.orchestrator=none."
        )


def _reason(problem: Exception) -> str:
    """Describe the innermost cause in a few words: Prefect wraps it in its own."""
    cause: BaseException = problem
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return redact(f"{type(cause).__name__}: {cause}".rstrip(": "))
