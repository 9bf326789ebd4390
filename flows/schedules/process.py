"""The process that Prefect's worker starts for a scheduled run: what is otherwise in it than Prefect would have it, and why."""

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
"""What the process is started with: the script by which the worker runs a flow's hooks lies beside a ``runner.py`` of Prefect's,
which it would import for our package of that name."""


@contextlib.contextmanager
def played_in_process(notify: Callable[[str], None]) -> Iterator[None]:
    """Have a flow, whose task this is, end in good order when it is cancelled, and survive a restart of the server.

    Prefect cancels a run by SIGTERM, and its handler raises wherever the event loop just is: no record would be finished. Ours
    cancels the task. It takes the handler's name as well, by which Prefect makes sure that its own is in place.

    Prefect also cancels a run whose lease, its hold on its schedule, cannot be renewed. A server forgets leases when it is
    restarted, unless it keeps them in files. That a run holds the schedule is in the database all the same, until it has ended.

    Args:
        notify: told, in a line, of a lease that is lost.
    """
    for name in ENVIRONMENT:
        os.environ.pop(name, None)  # programs that the run starts have no need of it
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def cancel(*_: object) -> None:
        loop.call_soon_threadsafe(task.cancel)

    def lost(error: BaseException, *_: object) -> None:
        notify(f"the server does not know any more that this run holds its schedule; the run goes on: {error}")

    with _instead(engine, "_prefect_sigterm_handler", cancel), _instead(_leases, "_handle_lease_renewal_failure", lost):
        theirs = signal.signal(signal.SIGTERM, cancel)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, theirs)


@contextlib.contextmanager
def _instead(module: ModuleType, name: str, ours: Callable[..., None]) -> Iterator[None]:
    """Have a module of Prefect's call a function of ours for one of its own."""
    theirs = getattr(module, name)
    setattr(module, name, ours)
    try:
        yield
    finally:
        setattr(module, name, theirs)
