"""The account of one slot: what its attempts have used, told to a keeper before each one is sent and after each one has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from runner.types import Held, Spent, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.types import Sample


Keep: TypeAlias = "Callable[[Spent, str | None], None]"
"""Called with a sum, and the name of the model: None is the main one."""

_NOTHING, _NOTHING_HELD = Spent(), Held()
_UNBOUNDED = Spent(1, held=Held(1))


class Account:
    """Add up the attempts of one slot.

    Args:
        keep: called with the sum, and the name of the model, before an attempt is sent, when nobody knows yet what it will use,
            and after one that brought no finished sample. It writes the sum down, so that a killed process forgets nothing.
        name: the name of the model that the account is of; None is the main one.

    Attributes:
        spent: the sum; its `held` part is of the attempts whose usage or cost nobody knows.
        priced_usd: the dollars that are known.
        named: the accounts of named models that were asked for this slot as well; None: none was.
    """

    __slots__ = ("_keep", "_name", "named", "priced_usd", "spent")

    def __init__(self, keep: Keep | None = None, name: str | None = None) -> None:
        self._keep = keep
        self._name = name
        self.named: dict[str, Account] | None = None
        self.spent = _NOTHING
        self.priced_usd = 0.0

    def sending(self, most: Mapping[str, Any] | None) -> None:
        """Write down that an attempt is sent now, which may use up to `most` (``usd`` and ``tokens``; None: unknown)."""
        if self._keep is not None:
            attempt = _UNBOUNDED if most is None else Spent(1, held=held(most))
            self._keep(self.spent + attempt if self.spent.requests else attempt, self._name)

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

    def add(self, other: Account) -> None:
        """Add what another account of the same slot has spent."""
        self.spent = self.spent + other.spent if self.spent.requests else other.spent
        self.priced_usd += other.priced_usd

    def settled(self) -> None:
        """Let go of the keeper: the account takes no more attempts."""
        self._keep = None

    def write(self) -> None:
        """Have the sum written down."""
        if self._keep is not None:
            self._keep(self.spent, self._name)

    def of(self, name: str) -> Account:
        """Return the account of a named model, which is asked for this slot as well."""
        if self.named is None:
            self.named = {}
        found = self.named.get(name)
        if found is None:
            found = self.named[name] = Account(self._keep, name)
        return found

    @property
    def total(self) -> Spent:
        """The sum, with the dollars that are known where those of an attempt are not."""
        if self.spent.cost_usd is not None or not self.priced_usd:
            return self.spent
        return self.spent + Spent(held=Held(usd=self.priced_usd))

    def close(self, sample: Sample) -> None:
        """Write into a finished sample what its attempts have used beyond its `usage` and `cost_usd`."""
        spent = self.spent
        sample.attempts = spent.requests
        if self.named:
            self.close_named(sample)
        if not spent.requests:
            return
        tokens = spent.held.tokens + max(0, spent.usage.total_tokens - (sample.usage.total_tokens if sample.usage else 0))
        usd = spent.held.usd + (self.priced_usd if sample.cost_usd is None else 0.0)
        if spent.held.attempts or tokens or usd:
            sample.held = Held(spent.held.attempts, tokens, usd)

    def close_named(self, sample: Sample) -> None:
        """Add what named models have used to the sample, which may have been judged before."""
        before = sample.named or {}
        spent = {name: account.total for name, account in (self.named or {}).items() if account.spent.requests}
        sample.named = {**before, **{name: before[name] + one if name in before else one for name, one in spent.items()}} or None


def held(most: Mapping[str, Any] | None) -> Held:
    """Return what is held for one attempt of unknown usage. A price of zero makes its cost known."""
    if most is None:
        return Held(1)
    usd, tokens = most["usd"], most["tokens"]
    return Held(0 if usd == 0 else 1, tokens or 0, usd or 0.0)
