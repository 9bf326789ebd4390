"""Ctrl-C and SIGTERM while something is played: the first stops in good order, the second stops now."""

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
_LISTENS = 2
"""Whoever sends a third signal is not kept waiting, whatever hangs: it does what it would have done without a run."""


class Playable(Protocol):
    """What can be played and stopped: a run, a sweep, a pipeline. `stop` is looked at wherever something is begun."""

    stop: Stop

    @property
    def begun(self) -> bool:
        """Whether a model has been asked: then there may be something in flight to wait for."""

    def interrupt(self) -> None:
        """Begin nothing more; what is in flight is finished and kept."""


class Interrupt:
    """A context manager around all that a run does. Off the main thread, where Python hears no signals, it changes nothing.

    The handler never raises: an exception out of nowhere may strike in a finaliser, which swallows it, or leave half an event
    loop. It notes the wish, at which planning and playing look; what has to be done about it is done by the loop, where one runs.
    Nothing is masked, and handlers are not inherited by another program, so children start with signals as they know them.

    Args:
        played: what is played.
        notify: told, in a line for people, that the first signal was heard.
    """

    def __init__(self, played: Playable, notify: Callable[[str], None]) -> None:
        self._played = played
        self._notify = notify
        self._heard = 0
        self._before: dict[signal.Signals, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._playing: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    async def watch(self, playing: Coroutine[Any, Any, None]) -> None:
        """Play in this loop, unless a signal came before; it is from now on the loop that acts on signals."""
        self._loop = asyncio.get_running_loop()
        if self._heard:
            playing.close()
            return
        self._playing = asyncio.ensure_future(playing)
        try:
            await self._playing
        except asyncio.CancelledError:
            self._played.stop.request()
        finally:
            self._loop = None

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: it was not set by Python

    def _hear(self, number: int, _frame: object) -> None:
        self._heard += 1
        self._played.stop.request()
        if self._heard > _LISTENS:
            self._give_back()
            signal.raise_signal(number)
        elif self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop of another thread, closed at this moment
                self._loop.call_soon_threadsafe(self._stop_asking if self._heard == 1 else self._cancel)

    def _stop_asking(self) -> None:
        self._played.interrupt()
        if self._played.begun:
            self._notify("stopping: what is in flight is finished and kept; press Ctrl-C again to stop now")
        else:  # servers may be starting still, and nothing is in flight
            self._cancel()

    def _cancel(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
