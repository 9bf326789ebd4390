"""Who watches an LM's calls: callbacks, told of each start and end; none of them can spoil a call."""

from __future__ import annotations

import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

logger = logging.getLogger("ostinato")


class Callback(Protocol):
    """What may be passed in `callbacks` (dspy 2.6's ``BaseCallback``, the two events of an LM)."""

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Before a call; `inputs` are the call's arguments."""

    def on_lm_end(self, call_id: str, outputs: list[Any] | None, exception: BaseException | None = None) -> None:
        """After a call: its outputs, or its exception."""


class Seen:
    """What a call came to, filled in by the one who makes it."""

    def __init__(self) -> None:
        self.outputs: list[Any] = []


def new_id() -> str:
    """A random UUID (version 4), as text. For names, not for secrets: several times as fast as `uuid.uuid4`."""
    bits = random.getrandbits(128) & ~(0xF << 76 | 0x3 << 62) | 4 << 76 | 2 << 62
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@contextlib.contextmanager
def observed(instance: Any, callbacks: Sequence[Callback], inputs: Callable[[], dict[str, Any]]) -> Iterator[Seen]:
    """Tell `callbacks` that a call of `instance` starts, and how it ends. One that raises is logged."""
    seen = Seen()
    if not callbacks:
        yield seen
        return
    call_id, given = new_id(), inputs()
    for callback in callbacks:
        with _logged("on_lm_start"):
            callback.on_lm_start(call_id=call_id, instance=instance, inputs=given)
    failed: BaseException | None = None
    try:
        yield seen
    except BaseException as error:
        failed = error
        raise
    finally:
        for callback in callbacks:
            with _logged("on_lm_end"):
                callback.on_lm_end(call_id=call_id, outputs=None if failed else seen.outputs, exception=failed)


@contextlib.contextmanager
def _logged(event: str) -> Iterator[None]:
    try:
        yield
    except Exception:  # boundary: a callback is the user's code
        logger.exception("the callback %s raised", event)
