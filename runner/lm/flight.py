"""Single flight: of identical concurrent calls only one is made, and all get its outcome."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = ParamSpec("P")
T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The calls in flight, by event loop and key. Each has a future from the moment that another call waits for it."""

    def __init__(self) -> None:
        self._flights: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Future[T] | None] = {}

    async def run(self, key: str, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> tuple[T, bool]:
        """Make `call` with these arguments, or wait for the call of the same key in flight; all get its outcome or its error.

        Returns:
            The outcome, and whether it is that of another call. If that one is cancelled, the next in line makes the call, unless
            it is cancelled, too.
        """
        place = (asyncio.get_running_loop(), key)
        flights = self._flights
        while place in flights:
            flight = flights[place]
            if flight is None:
                flight = flights[place] = place[0].create_future()
            task = asyncio.current_task()
            assert task is not None
            cancelled = task.cancelling()
            try:
                return await asyncio.shield(flight), True
            except asyncio.CancelledError:
                if not flight.cancelled() or task.cancelling() > cancelled:
                    raise
        flights[place] = None
        try:
            outcome = await call(*args, **kwargs)
        except Exception as error:
            if (flight := flights.pop(place)) is not None:
                flight.set_exception(error)
                flight.exception()  # marks it as retrieved, even if no other call waits for it any more
            raise
        except BaseException:
            if (flight := flights.pop(place)) is not None:
                flight.cancel()
            raise
        if (flight := flights.pop(place)) is not None:
            flight.set_result(outcome)
        return outcome, False
