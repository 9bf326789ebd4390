"""Playing in an event loop, under signals, by the orchestrator that a config names. Knows nothing of what is played."""

from __future__ import annotations

import asyncio
import contextlib
import pkgutil
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import OrchestratorError

if TYPE_CHECKING:
    from runner.batch.engine import Stop
    from runner.config.schema import RunConfig

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Notify = Callable[[str], None]


class Playable(Protocol):
    """What can be played and stopped: an experiment, a sweep."""

    @property
    def stop(self) -> Stop:
        """Set when it was asked to stop."""

    def interrupt(self) -> None:
        """Stop sending; what is in flight is finished and kept."""


def orchestrator(config: RunConfig, known: Mapping[str, str | None]) -> Callable[..., Coroutine[Any, Any, None]] | None:
    """Who plays, by ``execution.orchestrator``; None: nobody but ourselves. Raises OrchestratorError when it is not installed."""
    chosen = config.execution.orchestrator
    target = known[chosen]
    if target is None:
        return None
    try:
        found: Callable[..., Coroutine[Any, Any, None]] = pkgutil.resolve_name(target)
    except ImportError as error:
        raise OrchestratorError(
            f"execution.orchestrator={chosen} cannot be loaded ({error}); use execution.orchestrator=none"
        ) from None
    return found


class _Interrupt:
    """Ctrl-C: the first stops asking and lets what is in flight end, the second cancels that too. Called in the run's loop."""

    def __init__(self, play: Callable[[], Coroutine[Any, Any, None]], played: Playable, notify: Notify) -> None:
        self._play = play
        self._played = played
        self._notify = notify
        self._playing: asyncio.Task[None] | None = None

    def __call__(self) -> None:
        if self._played.stop.requested and self._playing is not None:
            self._playing.cancel()
        else:
            self._played.interrupt()
            self._notify("stopping: what is in flight is finished and kept; press Ctrl-C again to stop now")

    def from_another_thread(self) -> None:
        if self._playing is not None:
            self._playing.get_loop().call_soon_threadsafe(self)

    async def guard(self) -> None:
        """Play under the signals of this thread, where they are ours to handle."""
        self._playing = asyncio.ensure_future(self._play())
        with _signals(self):
            try:
                await self._playing
            except asyncio.CancelledError:
                self._played.stop.request()


@contextlib.contextmanager
def _signals(handler: Callable[[], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `handler`, where that is ours to decide: on the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold signals back until `_signals` can handle them: an interrupt in the middle of making a loop would leave half a one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_new_loop(play: Callable[[], Coroutine[Any, Any, None]], played: Playable, notify: Notify) -> None:
    """Play to the end in an event loop of its own; in a thread of its own when this one has a loop already (a notebook)."""
    interrupt = _Interrupt(play, played, notify)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with _held_back():
            asyncio.run(interrupt.guard())
        return
    errors: list[BaseException] = []
    ended = threading.Event()  # not `join`: interrupted, it takes a running thread for one that has ended (Python 3.11)

    def target() -> None:
        try:
            asyncio.run(interrupt.guard())
        except BaseException as error:  # noqa: BLE001 - boundary: carried to the thread that waits
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=target, name="ostinato").start()
    while not ended.is_set():
        try:
            ended.wait()
        except KeyboardInterrupt:
            interrupt.from_another_thread()
    if errors:
        raise errors[0]


def silent(_line: str) -> None:
    """Tell nobody."""
