"""The account of one slot: what its attempts have used, told to a keeper before each one is sent and after each one has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.types import Held, Spent, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.types import Sample


_NOTHING, _NOTHING_HELD = Spent(), Held()
_UNBOUNDED = Spent(1, held=Held(1))


class Account:
    """Add up the attempts of one slot.

    Args:
        keep: called with the sum before an attempt is sent, when nobody knows yet what it will use, and after one that brought
            no finished sample. It writes the sum down, so that a killed process forgets nothing.

    Attributes:
        spent: the sum; its `held` part is of the attempts whose usage or cost nobody knows.
        priced_usd: the dollars that are known.
    """

    __slots__ = ("_keep", "priced_usd", "spent")

    def __init__(self, keep: Callable[[Spent], None] | None = None) -> None:
        self._keep = keep
        self.spent = _NOTHING
        self.priced_usd = 0.0

    def sending(self, most: Mapping[str, Any] | None) -> None:
        """Write down that an attempt is sent now, which may use up to `most` (``usd`` and ``tokens``; None: unknown)."""
        if self._keep is not None:
            attempt = _UNBOUNDED if most is None else Spent(1, held=held(most))
            self._keep(self.spent + attempt if self.spent.requests else attempt)

    def ended(self, usage: Usage | None, cost_usd: float | None, most: Mapping[str, Any] | None, *, answered: bool) -> None:
        """Add an attempt that was sent.

        Args:
            usage: its tokens; None: unknown.
            cost_usd: its dollars; None: unknown.
            most: the most that it may have used, if its usage or cost is unknown; None if both are known.
            answered: whether it brought an answer.
        """
        self.priced_usd += cost_usd or 0.0
        unknown = _NOTHING_HELD if usage is not None else held(most)
        if usage is None and cost_usd is not None:
            unknown = Held(0, unknown.tokens, 0.0)
        attempt = Spent(1, usage or Usage(), cost_usd if answered or cost_usd else 0.0, unknown)
        self.spent = self.spent + attempt if self.spent.requests else attempt
        if not answered:
            self.write()

    def write(self) -> None:
        """Have the sum written down."""
        if self._keep is not None:
            self._keep(self.spent)

    def close(self, sample: Sample) -> None:
        """Write into a finished sample what its attempts have used beyond its `usage` and `cost_usd`."""
        spent = self.spent
        sample.attempts = spent.requests
        if not spent.requests:
            return
        tokens = spent.held.tokens + max(0, spent.usage.total_tokens - (sample.usage.total_tokens if sample.usage else 0))
        usd = spent.held.usd + (self.priced_usd if sample.cost_usd is None else 0.0)
        if spent.held.attempts or tokens or usd:
            sample.held = Held(spent.held.attempts, tokens, usd)


def held(most: Mapping[str, Any] | None) -> Held:
    """Return what is held for one attempt of unknown usage. A price of zero makes its cost known."""
    if most is None:
        return Held(1)
    usd, tokens = most["usd"], most["tokens"]
    return Held(0 if usd == 0 else 1, tokens or 0, usd or 0.0)
