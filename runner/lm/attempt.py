"""Follow one attempt at a request, and tell the limiter and the budget how it went."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from runner.errors import LMError, LMTimeoutError, MalformedError
from runner.types import Response, Usage

if TYPE_CHECKING:
    from runner.limits import Pass
    from runner.transport.base import Hear


class Answer(msgspec.Struct, frozen=True):
    """What came back for a Send, and the seconds it took, without those spent waiting for a place in the queue."""

    response: Response
    seconds: float


_NOTHING = Usage()


class Attempt:
    """One attempt, for those who want to know how it went: the limiter, and the budget.

    `used` is None where nobody knows: the answer does not say, or the server may have answered, and billed, all the same.
    """

    __slots__ = ("began", "place", "used")

    def __init__(self) -> None:
        self.place: Pass | None = None
        self.began: float | None = None
        self.used: Usage | None = _NOTHING

    @property
    def hear(self) -> Hear | None:
        """Whom the transport tells the headers of what comes back."""
        return self.place.hear if self.place is not None else None

    def begin(self) -> None:
        """It is sent now."""
        self.began = time.perf_counter()

    def failed(self, error: LMError) -> None:
        """It came to nothing."""
        if isinstance(error, MalformedError) or (isinstance(error, LMTimeoutError) and error.status is None):
            self.used = None
        if self.place is not None:
            self.place.failed(error, self._seconds())

    def succeeded(self, response: Response) -> Answer:
        """It was answered."""
        self.used = response.usage
        seconds = self._seconds()
        if self.place is not None:
            self.place.succeeded(response.usage.total_tokens if response.usage else None, seconds)
        return Answer(response, seconds)

    def _seconds(self) -> float:
        return time.perf_counter() - (self.began or 0.0)
