"""One limiter's part of an endpoint, and the passes that its requests are sent with."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from runner.limits.complaints import Complaints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.errors import LMError


class Issuer(Protocol):
    """The issuer of passes, which is told how they end: an Endpoint."""

    def hear(self, headers: Mapping[str, str], pass_: Pass | None = None) -> None:
        """Learn from the response headers of a pass."""

    def succeeded(self, pass_: Pass, tokens_used: int | None, seconds: float) -> None:
        """End a pass with an answer."""

    def failed(self, pass_: Pass, error: LMError, row: object = None) -> None:
        """End a pass with an error, of `row`."""

    def abandoned(self, pass_: Pass) -> None:
        """End a pass without an outcome."""


class Waiter(Protocol):
    """A task or thread in a queue. The holder of the endpoint's lock sets `pass_` or `refused_by` and calls `wake`.

    Attributes:
        ticket: its place in the order of arrival.
        tokens: the estimated tokens of its request.
        pass_: the pass, once it has one.
        refused_by: the error that closed the endpoint, if it is refused.
    """

    ticket: int
    tokens: int
    pass_: Pass | None
    refused_by: LMError | None

    def wake(self) -> bool:
        """Wake it. Return False if its event loop is closed."""

    def arm(self, delay_s: float) -> bool:
        """Set its timer to `delay_s` seconds, in place of an earlier one. Return False if its event loop is closed."""


class Lane:
    """One limiter's part of an endpoint's state; guarded by the endpoint's lock.

    Attributes:
        bound: how many of its requests may be in flight (inf: as many as the endpoint allows).
        adaptive: whether the endpoint's window, pauses, learned limits and breaker apply to it.
        closed_by: the error that closed it; `for_good` if its owner did.
        worked: whether any of its requests has succeeded.
        complaints: the refusals since.
    """

    __slots__ = (
        "__weakref__",
        "adaptive",
        "bound",
        "closed_by",
        "complaints",
        "for_good",
        "in_flight",
        "queue",
        "sleepers",
        "worked",
    )

    def __init__(self, bound: float, *, adaptive: bool) -> None:
        self.bound = bound
        self.adaptive = adaptive
        self.in_flight = 0
        self.queue: deque[Waiter] = deque()
        self.sleepers: set[Waiter] = set()
        self.closed_by: LMError | None = None
        self.for_good = False
        self.worked = False
        self.complaints = Complaints()


class Pass:
    """The permission to send one request. Ends with `succeeded`, `failed` or `abandoned`; only the first call counts.

    Attributes:
        order: how many requests the endpoint had sent before it; `tokens_before` are their estimated tokens.
        probe: whether it is a probe of a server that fails every request.
    """

    __slots__ = ("_done", "_issuer", "lane", "order", "probe", "sent_at", "tokens", "tokens_before")

    def __init__(self, issuer: Issuer, lane: Lane, tokens: int, sent_at: float, order: int, tokens_before: int) -> None:
        self._issuer = issuer
        self._done = False
        self.lane = lane
        self.tokens = tokens
        self.sent_at = sent_at
        self.order = order
        self.tokens_before = tokens_before
        self.probe = False

    def hear(self, headers: Mapping[str, str]) -> None:
        """Learn from the response headers (names in lower case). Call it before the pass ends."""
        self._issuer.hear(headers, self)

    def succeeded(self, tokens_used: int | None, seconds: float) -> None:
        """End with an answer.

        Args:
            tokens_used: prompt and answer; None if unknown: then the estimate stands.
            seconds: from sending to the answer.
        """
        if not self._done:
            self._done = True
            self._issuer.succeeded(self, tokens_used, seconds)

    def failed(self, error: LMError, seconds: float, row: object = None) -> None:  # noqa: ARG002 - for symmetry
        """End with `error`. How long a failure took is not used.

        Args:
            error: its `disposition` becomes ``row`` if the replies to other rows show that only this row is at fault.
            seconds: from sending to the failure.
            row: any value that is the same for the same question; None if it is unknown.
        """
        if not self._done:
            self._done = True
            self._issuer.failed(self, error, row)

    def abandoned(self) -> None:
        """End without an outcome: the request was cancelled, and nothing is learned."""
        if not self._done:
            self._done = True
            self._issuer.abandoned(self)
