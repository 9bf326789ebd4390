"""Single flight: of identical concurrent calls only one is made, and all get its outcome."""

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
        """Make `call`, or wait for the call of the same key in flight; all get its outcome or its error.

        Returns:
            The outcome, and whether it is that of another call. If that one is cancelled, the next in line makes the call.
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
            flight.exception()  # marks it as retrieved, even if no other call waits for it
            raise
        except BaseException:
            flight.cancel()
            raise
        else:
            flight.set_result(outcome)
            return outcome, False
        finally:
            del self._flights[place]
