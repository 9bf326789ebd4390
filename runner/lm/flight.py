"""Single flight: of identical calls at the same time one is made, and all have its outcome. Knows nothing of what a call is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The calls in flight, by event loop and key."""

    def __init__(self) -> None:
        self._flights: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Future[T]] = {}

    async def run(self, key: str, call: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Make `call`, or wait for the one of the same key that is in flight; its error is everybody's.

        Returns:
            The outcome, and whether it was another's. Where that other was cancelled, the next in line makes the call.
        """
        place = (asyncio.get_running_loop(), key)
        while (flight := self._flights.get(place)) is not None:
            try:
                return await asyncio.shield(flight), True
            except asyncio.CancelledError:
                if not flight.cancelled():
                    raise
        flight = self._flights[place] = place[0].create_future()
        try:
            outcome = await call()
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # whether or not another waits for it, it has been seen
            raise
        except BaseException:
            flight.cancel()
            raise
        else:
            flight.set_result(outcome)
            return outcome, False
        finally:
            del self._flights[place]
