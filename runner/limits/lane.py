"""One limiter's part of an endpoint, and the passes that its requests go out with."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.errors import LMError


class Issuer(Protocol):
    """Whoever gives out passes: an Endpoint."""

    def hear(self, headers: Mapping[str, str], pass_: Pass | None = None) -> None:
        """What a server says came back with a pass."""

    def succeeded(self, pass_: Pass, tokens_used: int | None, seconds: float) -> None:
        """A pass ends with an answer."""

    def failed(self, pass_: Pass, error: LMError) -> None:
        """A pass ends with an error."""

    def abandoned(self, pass_: Pass) -> None:
        """A pass ends without news."""


class Waiter(Protocol):
    """Someone who waits. Whoever holds the endpoint's lock sets `pass_` or `refused_by`, and calls `wake`.

    Attributes:
        ticket: its place in the order of arrival.
        tokens: what it wants to send.
        pass_: what it has waited for.
        refused_by: why it waits in vain.
    """

    ticket: int
    tokens: int
    pass_: Pass | None
    refused_by: LMError | None

    def wake(self) -> bool:
        """Have it go on; False when it is gone with its event loop."""

    def arm(self, delay_s: float) -> bool:
        """Have it ring in so many seconds, instead of any earlier order; False when it is gone with its event loop."""


class Lane:
    """One limiter's part of an endpoint's state; guarded by the endpoint's lock.

    Attributes:
        bound: how many of its requests may be in flight (inf: as many as the endpoint allows).
        adaptive: whether the endpoint's window, pauses, learned limits and breaker hold for it.
        closed_by: why it sends nothing more; `for_good` when its owner closed it.
        worked: whether any of its requests has succeeded.
    """

    __slots__ = ("__weakref__", "adaptive", "bound", "closed_by", "for_good", "in_flight", "queue", "sleepers", "worked")

    def __init__(self, bound: float, *, adaptive: bool) -> None:
        self.bound = bound
        self.adaptive = adaptive
        self.in_flight = 0
        self.queue: deque[Waiter] = deque()
        self.sleepers: set[Waiter] = set()
        self.closed_by: LMError | None = None
        self.for_good = False
        self.worked = False


class Pass:
    """Leave to send one request. Ends with `succeeded`, `failed` or `abandoned`; after the first of these, nothing counts.

    Attributes:
        order: how many requests the endpoint had sent before it; `tokens_before` are those of their estimates.
        probe: whether it asks a server that only fails if it works again.
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
        """Learn from the headers (names in lower case) of what came back. Call it before the pass ends."""
        self._issuer.hear(headers, self)

    def succeeded(self, tokens_used: int | None, seconds: float) -> None:
        """An answer came.

        Args:
            tokens_used: prompt and answer; None when unknown: then the estimate stands.
            seconds: from sending to the answer.
        """
        if not self._done:
            self._done = True
            self._issuer.succeeded(self, tokens_used, seconds)

    def failed(self, error: LMError, seconds: float) -> None:  # noqa: ARG002 - for symmetry; how long a failure took says nothing
        """No answer came, because of `error`."""
        if not self._done:
            self._done = True
            self._issuer.failed(self, error)

    def abandoned(self) -> None:
        """The request was given up on this side: nothing is learned."""
        if not self._done:
            self._done = True
            self._issuer.abandoned(self)
