"""Progress of work that is not a run: weights that are fetched, a training job that is followed."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

FETCH_EVERY_S = 5.0
"""Seconds between two lines on a pipe while weights are fetched."""


class Progress:
    """Show progress on stderr: one line, rewritten on a terminal; on a pipe a new line now and then.

    A context manager. It shows nothing if it is never called.

    Args:
        every_s: the least number of seconds between two lines on a pipe.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._live = sys.stderr.isatty()
        self._shown = ""
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shown and self._live:
            sys.stderr.write("\n")

    def __call__(self, text: str, *, last: bool = False) -> None:
        """Show `text`; the `last` one is shown even if the line before is recent."""
        now = time.monotonic()
        if text == self._shown or (not self._live and now < self._next and not last):
            return
        self._shown, self._next = text, now + self._every_s
        sys.stderr.write(f"\r{text}\x1b[K" if self._live else f"{text}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def fetching(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show how much of the weights `name` has arrived.

    Yields:
        The callback of `runner.models.weights.pull`: bytes so far, and of how many (None: unknown).
    """
    with Progress(FETCH_EVERY_S) as show:

        def fetched(done: int, total: int | None) -> None:
            of = f" of {total / 1e6:.0f} ({done / total:.0%})" if total else ""
            show(f"fetching {name}: {done / 1e6:.0f} MB{of}", last=done == total)

        yield fetched
