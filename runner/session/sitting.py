"""Run something to its end in one sitting: an event loop, signals, and a record that is finished however the sitting ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from runner.errors import OstinatoError
from runner.session.interrupt import Interrupt, Interruptible
from runner.session.loop import Notify, collecting_less, in_new_loop

if TYPE_CHECKING:
    from pathlib import Path

InLoop = Callable[[Coroutine[Any, Any, None]], None]
"""Run a coroutine to its end in an event loop of its own, where signals can stop it."""


class Work(Interruptible, Protocol):
    """A run, a sweep or a pipeline, with its folder."""

    folder: Path

    def record_failure(self, error: OstinatoError) -> bool:
        """Record the error that ended the work. Return whether the record explains it fully; if not, it is raised as well."""

    def finish(self) -> object:
        """Write how the work ended, and close its files."""


_live: dict[str, Work] = {}
"""The work of this process, by folder."""

W = TypeVar("W")


def live(folder: str, kind: type[W]) -> W | None:
    """Return the `kind` of work that this process runs in `folder`; None if there is none."""
    found = _live.get(folder)
    return found if isinstance(found, kind) else None


@contextlib.contextmanager
def sitting(work: Work, notify: Notify) -> Iterator[InLoop]:
    """Handle signals within the block, and finish the record of `work` however the block ends.

    Yields:
        What runs a coroutine to its end; it may be called once.

    Raises:
        OstinatoError: the error that ended the block, unless the record explains it fully.
    """
    with collecting_less(), Interrupt(work, notify) as interrupt, recorded(work):
        yield lambda running: in_new_loop(interrupt.watch(running))


@contextlib.contextmanager
def recorded(work: Work) -> Iterator[None]:
    """Make `work` findable by `live` within the block, and finish its record however the block ends. Raises as `sitting` does."""
    unexplained: list[OstinatoError] = []
    try:
        with _under_way(work, unexplained):
            yield
    finally:
        work.finish()
    if unexplained:
        raise unexplained[0]


@contextlib.asynccontextmanager
async def recorded_aside(work: Work) -> AsyncIterator[None]:
    """Do the same as `recorded`, and finish the record in a thread, so that the event loop does not wait for the disk."""
    unexplained: list[OstinatoError] = []
    try:
        with _under_way(work, unexplained):
            yield
    finally:
        await _to_its_end(asyncio.to_thread(work.finish))
    if unexplained:
        raise unexplained[0]


@contextlib.contextmanager
def _under_way(work: Work, unexplained: list[OstinatoError]) -> Iterator[None]:
    """Make `work` findable within the block, and record the error that ends it; one that the record does not explain is kept."""
    key = str(work.folder)
    _live[key] = work
    try:
        yield
    except OstinatoError as error:
        if not work.record_failure(error):
            unexplained.append(error)
    finally:
        del _live[key]


async def _to_its_end(coroutine: Coroutine[Any, Any, object]) -> None:
    """Wait for it even if this is cancelled meanwhile."""
    finishing = asyncio.ensure_future(coroutine)
    try:
        await asyncio.shield(finishing)
    except asyncio.CancelledError:
        await asyncio.wait({finishing})
        finishing.result()
        raise
