"""Follow one attempt at a request, and report its outcome to the limiter and the budget."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from runner.errors import LMError, LMTimeoutError, MalformedError
from runner.types import Response, Usage

if TYPE_CHECKING:
    from runner.limits import Pass
    from runner.transport.base import Hear
    from runner.types import Request


class Answer(msgspec.Struct, frozen=True):
    """The answer to a Send, and the seconds it took, without the wait for the rate limiter."""

    response: Response
    seconds: float


_NOTHING = Usage()


class Attempt:
    """One attempt at a request, as the limiter and the budget see it.

    `used` is None if unknown: the answer has no usage, or a request that failed may still have been billed.
    """

    __slots__ = ("_request", "began", "place", "used")

    def __init__(self, request: Request) -> None:
        self._request = request
        self.place: Pass | None = None
        self.began: float | None = None
        self.used: Usage | None = _NOTHING

    @property
    def hear(self) -> Hear | None:
        """The function that the transport calls with the response headers."""
        return self.place.hear if self.place is not None else None

    def begin(self) -> None:
        """Record that the request is sent now."""
        self.began = time.perf_counter()

    def failed(self, error: LMError) -> None:
        """Record a failure."""
        if isinstance(error, MalformedError) or (isinstance(error, LMTimeoutError) and error.status is None):
            self.used = None
        if self.place is not None:
            request = self._request
            self.place.failed(error, self._seconds(), hash(repr(request.messages or request.prompt)))

    def succeeded(self, response: Response) -> Answer:
        """Record an answer."""
        self.used = response.usage
        seconds = self._seconds()
        if self.place is not None:
            self.place.succeeded(response.usage.total_tokens if response.usage else None, seconds)
        return Answer(response, seconds)

    def _seconds(self) -> float:
        return time.perf_counter() - (self.began or 0.0)
