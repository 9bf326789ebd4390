"""What a call of an LM is made of: its steps, which a sync or an async driver carries out, and what others hear of an attempt."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from runner.errors import LMError, LMTimeoutError, MalformedError
from runner.types import Completion, Response, Usage

if TYPE_CHECKING:
    from runner.limits import Pass
    from runner.transport.base import Hear


class Send(msgspec.Struct, frozen=True):
    """Step: send the request; answered with an Answer, or an LMError is thrown in."""


SEND = Send()


class Wait(msgspec.Struct, frozen=True):
    """Step: wait so many seconds."""

    seconds: float


class Keep(msgspec.Struct, frozen=True):
    """Step: put the answer into the cache."""

    response: Response
    cost_usd: float | None


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


Steps: TypeAlias = Generator[Send | Wait | Keep, Answer | None, Completion]
"""One call: yields what is to be done, is sent what came back, or has an LMError thrown in; returns what the call came to."""
