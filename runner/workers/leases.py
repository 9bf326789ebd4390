"""Lease slots to workers in slices, and lease again what a lost worker has not returned."""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING

from runner.errors import LaunchError
from runner.workers.wire import Leased

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.batch.asker import Slot as RowSlot
    from runner.types import Sample
    from runner.workers.wire import Slot

LOSSES = 5
"""Workers that may be lost while they answer the same slot."""


class Leases:
    """The slots of a run that are owed.

    Args:
        due: the slots, in order.
        answered: samples, by slot, of which only the scores are owed; each is taken when it is leased.
    """

    def __init__(self, due: Iterable[RowSlot], answered: dict[Slot, Sample]) -> None:
        self._due = iter(due)
        self._answered = answered
        self._again: deque[Leased] = deque()
        self._losses: Counter[Slot] = Counter()
        self.out = 0
        self.exhausted = False

    @property
    def ended(self) -> bool:
        """Return whether nothing is owed, and nothing leased."""
        return self.exhausted and not self.out and not self._again

    def take(self, count: int) -> list[Leased]:
        """Return the next slots, those of lost workers first; fewer than `count` if there are no more."""
        taken = [self._again.popleft() for _ in range(min(count, len(self._again)))]
        if len(taken) < count and not self.exhausted:
            new = list(islice(self._due, count - len(taken)))
            self.exhausted = len(new) < count - len(taken)
            taken += [Leased(row, repeat, self._answered.pop((row.id, repeat), None)) for row, repeat in new]
        self.out += len(taken)
        return taken

    def returned(self) -> None:
        """Note that a slot is finished, or stays owed for a later sitting."""
        self.out -= 1

    def lost(self, leased: Iterable[Leased], begun: Iterable[Slot]) -> None:
        """Take back the slots of a lost worker, which had `begun` some of them.

        Raises:
            LaunchError: several workers were lost over a slot: it may be what ends them.
        """
        slots = list(leased)
        self.out -= len(slots)
        self._again.extendleft(reversed(slots))
        for slot in begun:
            self._losses[slot] += 1
            if self._losses[slot] >= LOSSES:
                raise LaunchError(
                    f"row '{slot[0]}' was being answered by {LOSSES} workers that were lost, and may be what ended them; "
                    "look at the workers' logs, and leave the row out with data.where, or resume the run"
                )
