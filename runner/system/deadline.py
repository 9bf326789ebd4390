"""Bound the time of a block, as `asyncio.timeout` does, with one timer for all blocks of an event loop.

Each request of a run is such a block, and nearly all end in time. `asyncio.timeout` makes a timer for each and cancels it again,
which costs as much CPU as reading the answer.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType


class Deadline:
    """Cancel what runs in the block after `seconds`, and raise TimeoutError in its place. None is no bound.

    Use it with ``with``, in a task. As with `asyncio.timeout`, a cancellation from outside stays one.
    """

    __slots__ = ("_cancelling", "_seconds", "_task", "_watch", "due", "expired")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self.expired = False

    def __enter__(self) -> None:
        if self._seconds is None:
            return
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self.due = loop.time() + self._seconds
        self._watch = _watches.get(loop) or _watches.setdefault(loop, _Watch())
        self._watch.begin(self, loop)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._seconds is None:
            return
        self._watch.running.discard(self)
        if self.expired and self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task."""
        self.expired = True
        self._task.cancel()


class _Watch:
    """The blocks of one event loop that have not ended, and when the next look at them is.

    It keeps no handle of a timer, which would keep the loop alive: a timer that has become needless finds nothing to do.
    """

    def __init__(self) -> None:
        self.running: set[Deadline] = set()
        self._next = math.inf

    def begin(self, deadline: Deadline, loop: asyncio.AbstractEventLoop) -> None:
        self.running.add(deadline)
        if deadline.due < self._next:
            self._next = deadline.due
            loop.call_at(deadline.due, self._look, deadline.due, loop)

    def _look(self, at: float, loop: asyncio.AbstractEventLoop) -> None:
        if at != self._next:
            return  # an earlier look was needed, and has set the time of the next one
        now = max(at, loop.time())
        for deadline in [one for one in self.running if one.due <= now and not one.expired]:
            deadline.expire()
        self._next = min((one.due for one in self.running if not one.expired), default=math.inf)
        if self._next < math.inf:
            loop.call_at(self._next, self._look, self._next, loop)


_watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = weakref.WeakKeyDictionary()
