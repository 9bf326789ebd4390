"""Tasks and threads queued at a limiter. They are woken from any thread and never poll."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.errors import LMError
    from runner.limits.lane import Pass


class TaskWaiter:
    """A waiting task of an event loop.

    Args:
        tokens: the estimated tokens of its request.
        ring: called when its timer fires; None wakes it.
    """

    __slots__ = ("_future", "_loop", "_ring", "_thread", "_timer", "pass_", "refused_by", "ticket", "tokens")

    def __init__(self, tokens: int = 0, *, ring: Callable[[], object] | None = None) -> None:
        self.ticket = 0
        self.tokens = tokens
        self.pass_: Pass | None = None
        self.refused_by: LMError | None = None
        self._ring = ring or self._wake
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        """Return when woken."""
        try:
            await self._future
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def wake(self) -> bool:
        """Implement `Waiter`."""
        return self._in_loop(self._wake)

    def arm(self, delay_s: float) -> bool:
        """Implement `Waiter`."""
        return self._in_loop(lambda: self._arm(delay_s))

    def _in_loop(self, act: Callable[[], None]) -> bool:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            if threading.get_ident() == self._thread:
                act()
            else:
                self._loop.call_soon_threadsafe(act)
            return True
        return False

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def _arm(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._future.done():
            self._timer = self._loop.call_later(delay_s, self._ring)


class ThreadWaiter:
    """A waiting thread without an event loop.

    Args:
        tokens: the estimated tokens of its request.
        ring: called when its timer fires; None wakes it.
    """

    __slots__ = ("_changed", "_ring", "_ring_at", "_woken", "pass_", "refused_by", "ticket", "tokens")

    def __init__(self, tokens: int = 0, *, ring: Callable[[], object] | None = None) -> None:
        self.ticket = 0
        self.tokens = tokens
        self.pass_: Pass | None = None
        self.refused_by: LMError | None = None
        self._ring = ring or self.wake
        self._changed = threading.Event()
        self._woken = False
        self._ring_at: float | None = None

    def wait(self) -> None:
        """Return when woken."""
        while not self._woken:
            ring_at = self._ring_at
            if self._changed.wait(None if ring_at is None else max(0.0, ring_at - time.monotonic())):
                self._changed.clear()
            elif ring_at == self._ring_at:  # the timer was not set again meanwhile
                self._ring_at = None
                self._ring()

    def wake(self) -> bool:
        """Implement `Waiter`."""
        self._woken = True
        self._changed.set()
        return True

    def arm(self, delay_s: float) -> bool:
        """Implement `Waiter`."""
        self._ring_at = time.monotonic() + delay_s
        self._changed.set()
        return True
