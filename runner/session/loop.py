"""Run a coroutine to its end, with or without a running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

Notify = Callable[[str], None]
"""Called with what happens, one line for people at a time."""

GARBAGE = 10_000
"""New objects after which Python looks for cyclic garbage during a run; its own default is 700."""


@contextlib.contextmanager
def collecting_less() -> Iterator[None]:
    """Collect cyclic garbage less often. By default Python looks for it every two rows, which is a sixth of a run's CPU."""
    before = gc.get_threshold()
    gc.set_threshold(max(GARBAGE, before[0]) if before[0] else 0, *before[1:])  # 0: collection is switched off
    try:
        yield
    finally:
        gc.set_threshold(*before)


def in_new_loop(running: Coroutine[Any, Any, None]) -> None:
    """Run to the end in a new event loop, and in a new thread if this one has a loop already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(running)
        return
    errors: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(running)
        except BaseException as error:  # noqa: BLE001 - boundary: carried to the thread that waits
            errors.append(error)

    thread = threading.Thread(target=target, name="ostinato")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def silent(_line: str) -> None:
    """Discard a line: the `notify` of a caller that gave none."""
