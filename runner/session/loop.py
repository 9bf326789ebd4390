"""Playing in an event loop, by the orchestrator that a config names. Knows nothing of what is played."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pkgutil
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from runner.errors import OrchestratorError

if TYPE_CHECKING:
    from runner.config.schema import RunConfig

Notify = Callable[[str], None]

GARBAGE = 10_000
"""Objects more than before, after which Python looks for cyclic garbage while a run is played; its own default is 700."""


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


@contextlib.contextmanager
def collecting_less() -> Iterator[None]:
    """Have Python look for cyclic garbage less often: it would do so for each two rows, which is a sixth of a run's CPU."""
    before = gc.get_threshold()
    gc.set_threshold(max(GARBAGE, before[0]) if before[0] else 0, *before[1:])  # 0: somebody has switched it off
    try:
        yield
    finally:
        gc.set_threshold(*before)


def in_new_loop(playing: Coroutine[Any, Any, None]) -> None:
    """Play to the end in an event loop of its own; in a thread of its own when this one has a loop already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(playing)
        return
    errors: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(playing)
        except BaseException as error:  # noqa: BLE001 - boundary: carried to the thread that waits
            errors.append(error)

    thread = threading.Thread(target=target, name="ostinato")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def silent(_line: str) -> None:
    """Tell nobody."""
