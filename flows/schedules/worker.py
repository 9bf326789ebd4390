"""Adapt Prefect's process worker for `ostinato serve`: an error in one run ends no other, and current runs can be cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx
from prefect._internal import _observation_delivery  # noqa: TID253
from prefect.states import Cancelling  # noqa: TID253 - a home of Prefect; serve imports it inside
from prefect.workers.process import ProcessWorker  # noqa: TID253

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun
    from prefect.workers.process import ProcessWorkerResult


class Worker(ProcessWorker):
    """A worker that knows its current runs.

    Its two underscored methods are Prefect's own, each called in a task of one group. An exception in one of them, such as a
    server that is away when a run is handed over, would cancel the group, and with it every current run.

    Attributes:
        playing: the flow runs that have a process.
    """

    @classmethod
    def __dispatch_key__(cls) -> str:
        return "ostinato"  # so that Prefect's registry keeps its own worker for the type ``process``

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.playing: set[UUID] = set()

    async def run(self, flow_run: FlowRun, *args: Any, **kwargs: Any) -> ProcessWorkerResult:
        """Run one flow run to its end, in a process."""
        self.playing.add(flow_run.id)
        try:
            return await super().run(flow_run, *args, **kwargs)
        finally:
            self.playing.discard(flow_run.id)

    async def cancel(self) -> None:
        """Cancel all current runs as a user of Prefect would. Prefect then ends their processes.

        Raises:
            httpx.HTTPError: the server cannot be reached.
        """
        for flow_run in tuple(self.playing):
            await self.client.set_flow_run_state(flow_run, Cancelling(message="Its worker was stopped."))

    async def _submit_run(self, flow_run: FlowRun) -> None:
        with self._alone(flow_run):
            await super()._submit_run(flow_run)

    async def _submit_run_and_capture_errors(self, flow_run: FlowRun, *args: Any, **kwargs: Any) -> Any:
        with self._alone(flow_run):
            return await super()._submit_run_and_capture_errors(flow_run, *args, **kwargs)

    @contextlib.contextmanager
    def _alone(self, flow_run: FlowRun) -> Iterator[None]:
        """Confine errors of the server to this run. If it has not started, the worker finds it again."""
        try:
            yield
        except httpx.HTTPError as error:
            self._logger.warning("The server failed while run %s was handled: %r", flow_run.id, error)
            self._submitting_flow_run_ids.discard(flow_run.id)
            self._release_limit_slot(flow_run.id)


async def _patiently(workload: Callable[[], Awaitable[None]], interval: float, **_: Any) -> None:
    """Call `workload` every `interval` seconds, however often the server fails. Prefect's own loop ends at the third failure."""
    while True:
        with contextlib.suppress(httpx.HTTPError):
            await workload()
        await asyncio.sleep(interval)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Keep current runs cancellable, however long their server has been away.

    While the stream of events is down, Prefect polls for runs to cancel, with a loop that gives up.
    """
    namespace = vars(_observation_delivery)
    theirs, namespace["critical_service_loop"] = namespace["critical_service_loop"], _patiently
    try:
        yield
    finally:
        namespace["critical_service_loop"] = theirs
