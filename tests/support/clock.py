"""Time in tests: a clock that the test moves, simulated time, and the one way to wait for another thread or process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

T = TypeVar("T")
PATIENCE_S = 600.0
"""Seconds that a test waits before it fails. They bound broken tests, not speed: a slow, busy machine keeps them easily."""


class Clock:
    """Time that passes only when the test sets `now` (s)."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return `now`."""
        return self.now


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop for tasks without sockets. Its time (s) jumps to the next timer once nothing is ready."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 1000.0
        select = self._selector.select

        def skip(timeout: float | None) -> Any:
            self._seconds += timeout or 0.0
            return select(timeout and 0)

        self._selector.select = skip

    def time(self) -> float:
        """Return the simulated time."""
        return self._seconds


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in simulated time: what takes minutes ends at once, and the same way on every machine."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)


def wait_until(condition: Callable[[], T], what: str) -> T:
    """Wait until `condition()` is true, and return its value.

    Args:
        condition: called every 10 ms.
        what: the noun for the failure's message.

    Raises:
        AssertionError: it did not become true within `PATIENCE_S`.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S:g} s"
        time.sleep(0.01)
    return value
