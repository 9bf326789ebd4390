"""Hold everything that sends and prices the requests of one LM; a `Call` needs nothing else of the LM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.cost.pricing import Price, longest_answer, price_of
from runner.cost.tokens import most
from runner.lm.connection import normalise_url
from runner.network.retry import RetryPolicy

if TYPE_CHECKING:
    # a channel is never decoded, so that its annotations are never evaluated
    from runner.cost.budget import Budget  # noqa: TC004
    from runner.limits import Limiter  # noqa: TC004
    from runner.lm.permits import Permits  # noqa: TC004
    from runner.transport import Transport  # noqa: TC004
    from runner.types import Connection, Request, Response, Usage  # noqa: TC004

_OURS = ("local/", "fake/")
"""Prefixes of models that no provider serves."""


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what one call is sent through, and its price. Made by `LM.channel`.

    Attributes:
        model: ``provider/name``.
        transport: sends a request once.
        connection: address, key, headers and timeout.
        limiter: the endpoint's rate limiter; None sends without waiting.
        budget: the run's budget; None is no bound.
        permits: in place of both, those of another process that has them; None: there is none.
        retry: which errors are retried, and when.
        own_price: the price to use in place of the published one.
        service_tier: the request parameter of that name, which some providers have other prices for.
    """

    model: str
    transport: Transport
    connection: Connection
    limiter: Limiter | None = None
    budget: Budget | None = None
    permits: Permits | None = None
    retry: RetryPolicy = RetryPolicy()
    own_price: Price | None = None
    service_tier: str | None = None

    @property
    def endpoint(self) -> tuple[str, str | None]:
        """The owner of rate limits, quotas and outages: the address (or the provider's name) and the key."""
        name = self.model if self.model.startswith(_OURS) else self.model.partition("/")[0]
        return normalise_url(self.connection.api_base) or name, self.connection.api_key

    @property
    def price(self) -> Price | None:
        """Dollars per token; None if unknown: a model behind a custom address has no published price."""
        if self.own_price is not None:
            return self.own_price
        return None if self._is_custom else price_of(self.model, self.service_tier)

    @property
    def longest_answer(self) -> int | None:
        """Tokens of the longest answer that the model gives, None if unknown."""
        return None if self._is_custom else longest_answer(self.model)

    def cost(self, usage: Usage | None, named_usd: float | None = None) -> float | None:
        """Return the dollars for `usage`, None if the price or the usage is unknown.

        `named_usd`, the cost that the answer itself names, goes before the published price, and `own_price` before both.
        """
        if named_usd is not None and self.own_price is None:
            return named_usd
        return price.cost(usage) if usage and (price := self.price) else None

    def cost_from(self, response: Response) -> str | None:
        """Return who named the dollars of an answer; None: they are reckoned here."""
        return None if response.cost_usd is None or self.own_price is not None else response.cost_from

    def most(self, request: Request) -> dict[str, Any]:
        """Return the most that one attempt at `request` may use: dollars (`usd`) and `tokens`, None if unknown."""
        usage, price = most(request, self.longest_answer), self.price
        usd = price.most(usage.prompt_tokens, usage.completion_tokens) if usage and price else None
        return {"usd": usd, "tokens": usage.total_tokens if usage else None}

    @property
    def _is_custom(self) -> bool:
        return bool(self.connection.api_base) or self.model.startswith(_OURS)
