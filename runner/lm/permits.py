"""Declare what stands in for limiter, budget and ledger where these are another process's: a head grants each attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.cache import Cache
    from runner.cost.account import Account
    from runner.errors import LMError
    from runner.types import Request, Response


class AnsweredElsewhere(Exception):  # noqa: N818 - an answer rather than a mistake
    """Signal that a request need not be sent: the head has its answer, from the cache or from another worker.

    Attributes:
        response: the answer.
        cost_usd: what it cost when it was made, in dollars; None: unknown.
    """

    def __init__(self, response: Response, cost_usd: float | None) -> None:
        super().__init__()
        self.response = response
        self.cost_usd = cost_usd


class Permit(Protocol):
    """The permission to send one attempt: a `runner.limits.Pass` and a `runner.cost.budget.Reservation` in one."""

    def hear(self, headers: Mapping[str, str]) -> None:
        """Pass on response headers (names in lower case)."""

    def succeeded(self, tokens_used: int | None, seconds: float) -> None:
        """End with an answer."""

    def keeps(self, store: Cache | None) -> None:
        """Name the cache that gets the answer after `settle`; None: none does."""

    def failed(self, error: LMError, seconds: float, row: object = None) -> None:
        """End with an error."""

    def abandoned(self) -> None:
        """End without an outcome."""

    def settle(self, *, usd: float | None = None, tokens: int | None = None, sent: bool = True) -> None:
        """Say what was used; None: unknown."""

    async def judged(self, error: LMError) -> None:
        """Wait until the head has said whose fault a failure is, and set the error's `disposition`."""


class Permits(Protocol):
    """Grant attempts of one model."""

    async def acquire(
        self, request: Request, key: str, tokens: int, most: Mapping[str, Any] | None, account: Account | None
    ) -> Permit:
        """Wait for the permission to send one attempt. When it is there, the ledger of the run has the attempt.

        Args:
            request: what is sent.
            key: its key in the cache.
            tokens: an estimate of its tokens, prompt and answer.
            most: the most that it may use (``usd`` and ``tokens``); None: no budget needs to know.
            account: the account of the slot.

        Raises:
            AnsweredElsewhere: the answer is there already.
            LMError, BudgetExceeded: as a limiter and a budget do.
        """

    async def pause(self, seconds: float) -> None:
        """Wait `seconds`. Raises EndpointClosedError as soon as the endpoint is closed."""
