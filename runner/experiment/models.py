"""Keep the answers of a run to one model where only the answers say which one that is (``cache.served``)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Literal

from runner.errors import BudgetExceeded, CacheError, LMError, RecordError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from runner.batch.asker import Asker, Slot
    from runner.batch.engine import Stop
    from runner.cache import Cache
    from runner.types import Sample

FIRST = 3
"""Rows that are asked past the cache, at most, to learn which model answers."""


class Models:
    """Tell a run's earlier answers (from the cache, or from an earlier sitting) from answers of another model.

    Args:
        policy: ``cache.served``.
        folder: the run folder, for messages.

    Attributes:
        policy: ``cache.served``.
    """

    def __init__(self, policy: Literal["warn", "refuse", "refresh"], folder: Path) -> None:
        self.policy = policy
        self._folder = folder
        self._earlier: frozenset[str] = frozenset()

    def begin(self, earlier: Iterable[str]) -> None:
        """Note the models of the answers that the run has before it asks."""
        self._earlier = frozenset(earlier)

    def changed(self, samples: Iterable[Sample]) -> str | None:
        """Describe, once, a model among new samples that none of the earlier answers is from."""
        if not self._earlier:
            return None
        named = (sample.model_served for sample in samples if sample.cache != "hit")
        if (new := next((model for model in named if model and model not in self._earlier), None)) is None:
            return None
        told = _difference(self._earlier, new)
        self._earlier = frozenset()
        return f"{told}. cache.served=refuse or cache.served=refresh keeps them apart"

    async def learn(
        self, asker: Asker, due: Iterable[Slot], keep: Callable[[list[Sample]], None], stop: Stop
    ) -> set[tuple[str, int]]:
        """Ask rows past the cache until an answer names its model, and have the cache give that model's answers only.

        With ``refuse`` these answers are not stored either: the cache stays as it is.

        Args:
            asker: asks a row; its LM has a cache.
            due: the rows to ask, in order.
            keep: called with each sample.
            stop: requested if no row can be asked.

        Returns:
            The slots (row id, repeat) that were asked.
        """
        store = _store(asker)
        mode, asked = store.mode, set()
        store.mode = "refresh" if self.policy == "refresh" and store.writes else "off"
        try:
            for slot in islice(due, FIRST):
                sample = await asker.ask(slot)
                asked.add((slot[0].id, slot[1]))
                keep([sample])
                store.only = sample.model_served
                if store.only is not None:
                    break
        except (LMError, BudgetExceeded) as error:
            stop.request(error)
        finally:
            store.mode = mode
        return asked

    def refuse_earlier(self, asker: Asker, earlier: Collection[str]) -> None:
        """Raise RecordError if an earlier sitting has answers of another model than the one that answers now."""
        if (now := _store(asker).only) is not None and (others := set(earlier) - {now}):
            raise RecordError(f"{self._folder}: {_difference(others, now)}; start a new run with `ostinato run`")

    def passed_over(self, asker: Asker) -> str | None:
        """Describe the answers of other models that the cache has and that are not used.

        Raises:
            CacheError: the policy is ``refuse``, and there are some.
        """
        store = _store(asker)
        if store.only is None or not store.others:
            return None
        told = _difference(store.others, store.only)
        if self.policy == "refuse":
            raise CacheError(f"{told}; nothing more was sent. cache.served=refresh or cache.mode=refresh asks again")
        return f"{told}; what they answered is asked again"


def _store(asker: Asker) -> Cache:
    assert asker.lm.store is not None
    return asker.lm.store


def _difference(earlier: Iterable[str], new: str) -> str:
    """Describe that a run would have answers of several models."""
    was = ", ".join(f"'{model}'" for model in sorted(earlier))
    return f"the answers that this run has from the cache or from an earlier sitting are by {was}; now '{new}' answers"
