"""Ctrl-C and SIGTERM during a sitting: the first signal stops in good order, the second stops immediately."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from runner.batch.engine import Stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HANDLED = 2
"""Signals that are handled. The third one takes its usual effect, so that nothing that hangs can keep a person waiting."""


class Interruptible(Protocol):
    """A run, a sweep or a pipeline that can be stopped. It checks `stop` before it begins anything."""

    stop: Stop

    @property
    def begun(self) -> bool:
        """Return whether a model has been asked, so that requests may be in flight."""

    def interrupt(self) -> None:
        """Begin nothing more. Requests in flight are finished and kept."""


class Interrupt:
    """Handle signals within a `with` block. Off the main thread, where Python receives no signals, it changes nothing.

    The handler never raises: an exception at an arbitrary point may strike in a finaliser, which swallows it, or leave half an
    event loop. It only sets `stop`, which planning and asking check; the event loop, where one runs, does the rest.
    Nothing is masked, and handlers are not inherited by another program, so children start with the usual signals.

    Args:
        work: a run, a sweep or a pipeline.
        notify: called with a line for people after the first signal.
    """

    def __init__(self, work: Interruptible, notify: Callable[[str], None]) -> None:
        self._work = work
        self._notify = notify
        self._heard = 0
        self._previous: dict[signal.Signals, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    async def watch(self, running: Coroutine[Any, Any, None]) -> None:
        """Run in this loop, unless a signal came before. From now on the loop acts on signals."""
        self._loop = asyncio.get_running_loop()
        if self._heard:
            running.close()
            return
        self._running = asyncio.ensure_future(running)
        try:
            await self._running
        except asyncio.CancelledError:
            self._work.stop.request()
        finally:
            self._loop = None

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: Python did not set it

    def _hear(self, number: int, _frame: object) -> None:
        self._heard += 1
        self._work.stop.request()
        if self._heard > _HANDLED:
            self._restore()
            signal.raise_signal(number)
        elif self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop of another thread, closed at this moment
                self._loop.call_soon_threadsafe(self._stop_asking if self._heard == 1 else self._cancel)

    def _stop_asking(self) -> None:
        self._work.interrupt()
        if self._work.begun:
            self._notify("stopping: what is in flight is finished and kept; press Ctrl-C again to stop now")
        else:  # servers may still be starting, and nothing is in flight
            self._cancel()

    def _cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()
