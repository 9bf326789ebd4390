"""Time in tests: a clock that the test moves, and the one way to wait for what another thread or process does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
PATIENCE_S = 180.0
"""Seconds that a test waits before it fails. They bound broken tests, not speed: a slow, busy machine keeps them easily."""


class Clock:
    """Time that passes only when the test sets `now` (s)."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return `now`."""
        return self.now


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
