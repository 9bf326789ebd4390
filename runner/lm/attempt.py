"""Follow one attempt at a request, and report its outcome to the limiter, the budget and the account."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runner.errors import LMTimeoutError, MalformedError, TransportError
from runner.types import Usage

if TYPE_CHECKING:
    from runner.errors import LMError
    from runner.limits import Pass
    from runner.lm.permits import Permit
    from runner.transport.base import Hear
    from runner.types import Request, Response


_NOTHING = Usage()
_ANSWERED, _TIMED_OUT, _SERVER_FAILED = 200, 408, 500


class Attempt:
    """One attempt at a request, as the limiter, the budget and the slot's account see it.

    Attributes:
        place: its pass from the limiter.
        began: when it was sent; None before that.
        seconds: how long the answer took, without the wait for the rate limiter.
        response: its answer; None if it has brought none.
        used: its tokens; None if unknown: it has not ended, its answer has no usage, or it failed and may have been billed.
        usd: its dollars; None if unknown, or before it is settled.
    """

    __slots__ = ("_request", "began", "place", "response", "seconds", "usd", "used")

    def __init__(self, request: Request) -> None:
        self._request = request
        self.place: Pass | Permit | None = None
        self.began: float | None = None
        self.seconds = 0.0
        self.response: Response | None = None
        self.used: Usage | None = None
        self.usd: float | None = None

    @property
    def hear(self) -> Hear | None:
        """The function that the transport calls with the response headers."""
        return self.place.hear if self.place is not None else None

    def begin(self) -> None:
        """Record that the request is sent now."""
        self.began = time.perf_counter()

    def failed(self, error: LMError) -> None:
        """Record a failure."""
        if not may_be_billed(error):
            self.used = _NOTHING
        if self.place is not None:
            request = self._request
            seconds = time.perf_counter() - (self.began or 0.0)
            self.place.failed(error, seconds, hash(repr(request.messages or request.prompt)))

    def succeeded(self, response: Response) -> None:
        """Record an answer."""
        self.response, self.used = response, response.usage
        self.seconds = time.perf_counter() - (self.began or 0.0)
        if self.place is not None:
            self.place.succeeded(response.usage.total_tokens if response.usage else None, self.seconds)


def may_be_billed(error: LMError) -> bool:
    """Return whether the model may have generated something for a request that failed.

    A refusal (4xx) comes before anything is generated, unless it is an event in the middle of a stream. A server that failed
    (5xx), an answer that did not come in time, was cut off, cannot be used or says that it has failed (200) may have been
    generated in part or whole. Nothing was sent if there was no connection.
    """
    if error.begun:
        return True
    if error.status is not None:
        return error.status in (_ANSWERED, _TIMED_OUT) or error.status >= _SERVER_FAILED
    return error.sent and isinstance(error, MalformedError | LMTimeoutError | TransportError)
