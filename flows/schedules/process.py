"""Change what Prefect does in the process of a scheduled run: how it is cancelled, and what a lost lease means."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from prefect.concurrency import _leases  # noqa: TID253 - a home of Prefect; flows.schedules.turn is, whose flow plays in this process
from prefect.utilities import engine  # noqa: TID253

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

ENVIRONMENT = {"PYTHONSAFEPATH": "1"}
"""The process is started with this: the script with which the worker runs a flow's hooks is next to a ``runner.py`` of Prefect's,
which would be imported instead of our package of that name."""


@contextlib.contextmanager
def played_in_process(notify: Callable[[str], None]) -> Iterator[None]:
    """Let the flow in this task finish its record when it is cancelled, and survive a restart of the server.

    Prefect cancels a run with SIGTERM. Its handler raises wherever the event loop happens to be, so no record would be finished;
    ours cancels the task. Ours also takes the name of Prefect's handler, by which Prefect checks that its own is in place.

    Prefect also cancels a run when the lease by which it holds its schedule cannot be renewed. A server forgets leases when it is
    restarted, unless it keeps them in files. The database still says that the run holds the schedule, until it has ended.

    Args:
        notify: called with a line when a lease is lost.
    """
    for name in ENVIRONMENT:
        os.environ.pop(name, None)  # programs that the run starts do not need it
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def cancel(*_: object) -> None:
        loop.call_soon_threadsafe(task.cancel)

    def lost(error: BaseException, *_: object) -> None:
        notify(f"the server has forgotten that this run holds its schedule; the run continues: {error}")

    with _instead(engine, "_prefect_sigterm_handler", cancel), _instead(_leases, "_handle_lease_renewal_failure", lost):
        theirs = signal.signal(signal.SIGTERM, cancel)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, theirs)


@contextlib.contextmanager
def _instead(module: ModuleType, name: str, ours: Callable[..., None]) -> Iterator[None]:
    """Replace a function of a Prefect module with ours."""
    theirs = getattr(module, name)
    setattr(module, name, ours)
    try:
        yield
    finally:
        setattr(module, name, theirs)
