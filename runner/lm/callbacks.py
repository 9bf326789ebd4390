"""Notify callbacks of the start and end of an LM's calls; an error in a callback never fails a call."""

from __future__ import annotations

import contextlib
import logging
import random
import uuid
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from runner.lm.arguments import Inputs

logger = logging.getLogger("ostinato")


class Callback(Protocol):
    """The interface of `callbacks` (dspy 2.6's ``BaseCallback``, the two events of an LM)."""

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Handle the start of a call; `inputs` are its arguments."""

    def on_lm_end(self, call_id: str, outputs: list[Any] | None, exception: BaseException | None = None) -> None:
        """Handle the end of a call: its outputs, or its exception."""


_PROCESS = str(uuid.uuid4())[:24]


def new_id() -> str:
    """Return a random UUID (version 4) as text. For names, not for secrets: only its last 48 bits differ within a process."""
    return f"{_PROCESS}{random.getrandbits(48):012x}"


class Observed:
    """A context manager around a call that notifies `callbacks` of its start and end. Errors in callbacks are logged.

    Args:
        instance: the LM.
        callbacks: what is notified.
        inputs: the arguments of the call.

    Attributes:
        outputs: the outputs of the call, set by the caller.
    """

    __slots__ = ("_call_id", "_callbacks", "_inputs", "_instance", "outputs")

    def __init__(self, instance: Any, callbacks: Sequence[Callback], inputs: Inputs) -> None:
        self._instance, self._callbacks, self._inputs = instance, tuple(callbacks), inputs
        self.outputs: list[Any] = []

    def __enter__(self) -> Self:
        if self._callbacks:
            self._call_id = new_id()
            given = {"prompt": self._inputs.prompt, "messages": self._inputs.messages, **self._inputs.shown()}
            for callback in self._callbacks:
                with _logged("on_lm_start"):
                    callback.on_lm_start(call_id=self._call_id, instance=self._instance, inputs=given)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for callback in self._callbacks:
            with _logged("on_lm_end"):
                callback.on_lm_end(call_id=self._call_id, outputs=None if error else self.outputs, exception=error)


@contextlib.contextmanager
def _logged(event: str) -> Iterator[None]:
    try:
        yield
    except Exception:  # boundary: a callback is the user's code
        logger.exception("the callback %s raised", event)
