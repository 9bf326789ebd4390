"""Send the pieces of an answer to the program that `dspy.streamify` made, while the answer comes."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.from_thread

from runner.transport.litellm import chunk_maker
from runner.transport.streamed import LISTENER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from runner.transport.streamed import Piece

T = TypeVar("T")


class _Heard:
    """The pieces of one answer, in the order in which they come, from any thread.

    If an attempt breaks off in the middle, the pieces of the next one are not sent: they would repeat what was said.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._begun = False

    def begin(self) -> Callable[[Piece], None] | None:
        """Begin an attempt. Return what takes its pieces; None: they are not wanted."""
        return None if self._begun else self._take

    def end(self, _: object = None) -> None:
        """Say that no piece will follow."""
        self._pieces.put_nowait(None)

    async def next(self) -> Piece | None:
        """Wait for a piece; None: there are no more."""
        return await self._pieces.get()

    def _take(self, piece: Piece) -> None:
        self._begun = True
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)


async def send_pieces(stream: Any, ask: Callable[[], Coroutine[Any, Any, T]], model: str, predictor: int | None) -> T:
    """Ask, and send each piece of the answer to `stream` when it comes. An answer from the cache has no pieces.

    Args:
        stream: dspy's ``settings.send_stream``.
        ask: asks, with a request for a streamed answer. Its errors are raised.
        model: the model's name, for the pieces.
        predictor: the identity of dspy's predictor that asks.
    """
    make, heard = chunk_maker(), _Heard()
    token = LISTENER.set(heard.begin)
    try:
        asking = asyncio.get_running_loop().create_task(ask())  # it has the listener; what follows here does not
    finally:
        LISTENER.reset(token)
    asking.add_done_callback(heard.end)
    try:
        while (piece := await heard.next()) is not None:
            chunk = make(model, piece.number, piece.text, piece.reasoning)
            if predictor is not None:
                chunk.predict_id = predictor
            await stream.send(chunk)
        return await asking
    finally:
        asking.cancel()  # has an effect only if the program has gone away


def send_blocking(stream: Any, ask: Callable[[], Coroutine[Any, Any, T]], model: str, predictor: int | None) -> T:
    """Do as `send_pieces`, in the thread in which `dspy.streamify` runs a program that is not async."""
    return anyio.from_thread.run(functools.partial(send_pieces, stream, ask, model, predictor))
