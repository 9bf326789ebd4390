"""Choose the rows of a dataset, and their order."""

from __future__ import annotations

import random
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from runner.data.paths import inside
from runner.data.where import Where
from runner.errors import DataError
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.data.sources import Fields, Source


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Rows to use, and their order. The steps are taken in the order of the attributes; each works on what the last one left.

    Attributes:
        where: an expression that rows must satisfy, such as ``level == "hard" and answers.length > 2``; None: all.
        ids: use the rows with these ids; None: all.
        span: (start, end): from the row with this number, from 0, up to the one before `end`; None: all.
        shard: (i, n): the i-th of n shares, from 1: each n-th row; None: all.
        sample: draw so many rows at random, by `seed`; they keep their order. None: all.
        stratify: a column; the sample has its values in the shares that they have among all rows.
        shuffle: put the rows into a random order that depends only on `seed` and the number of rows.
        limit: use the first `limit` rows; None: all.
        seed: which sample, and which random order.

    Raises:
        DataError: a number is out of bounds, or `stratify` is given without `sample`.
    """

    where: str | None = None
    ids: Collection[str] | None = None
    span: tuple[int, int] | None = None
    shard: tuple[int, int] | None = None
    sample: int | None = None
    stratify: str | None = None
    shuffle: bool = False
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise DataError(f"data.limit is {self.limit}: give 1 or more, or null for every row")
        if self.sample is not None and self.sample < 1:
            raise DataError(f"data.sample is {self.sample}: give 1 or more, or null for every row")
        if self.span is not None and not 0 <= self.span[0] < self.span[1]:
            raise DataError(f"data.range is {list(self.span)}: give [start, end], from 0, with start before end")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise DataError(f"data.shard is {self.shard[0]}/{self.shard[1]}: give i/n with i from 1 to n, such as 2/5")
        if self.stratify is not None and self.sample is None:
            raise DataError("data.stratify needs data.sample: how many rows to draw")

    @property
    def is_plain(self) -> bool:
        """True if all rows are used in their order, up to the limit."""
        return self == Selection(limit=self.limit, seed=self.seed)

    def order(self, source: Source, id_of: Callable[[int, Fields], str], named: Callable[[int, Fields], Fields]) -> array[int]:
        """Return the positions of the rows to use, in their order.

        Args:
            source: the records.
            id_of: returns the id of a record at a position.
            named: returns the fields of a record at a position under all their names.

        Raises:
            ConfigError: `where` is not a valid expression.
            DataError: no row is left, or there is no row with one of `ids`.
        """
        strata: list[Any] = []
        if self.where is None and self.ids is None and self.stratify is None:
            chosen = source.positions()
        else:
            chosen, strata = self._found(source, id_of, named)
        kept = range(len(chosen))
        if self.span is not None:
            kept = kept[self.span[0] : self.span[1]]
        if self.shard is not None:
            kept = kept[self.shard[0] - 1 :: self.shard[1]]
        order = array("Q", (chosen[at] for at in self._sampled(kept, strata)))
        if not order and len(chosen):  # without any row, the dataset says so itself
            raise DataError(f"the selection leaves none of the {len(chosen):,} rows of {source.name}")
        if self.shuffle:
            # Depends on the seed and the number of rows alone, so the same permutation comes back on any machine.
            random.Random(self.seed).shuffle(order)  # noqa: S311 - an order, not a secret
        return order[: self.limit]

    def _found(
        self, source: Source, id_of: Callable[[int, Fields], str], named: Callable[[int, Fields], Fields]
    ) -> tuple[array[int], list[Any]]:
        """Return the positions that `where` and `ids` leave, and the value of `stratify` at each."""
        missing = dict.fromkeys(self.ids or ())
        where: Where | None = None
        chosen, strata, seen = array("Q"), [], 0
        known: list[str] = []
        for position, record in source.scan():
            seen += 1
            fields = named(position, record)
            if self.where is not None:
                if where is None:
                    where = Where(self.where, {name for column in fields for name in (column, f"{column}.")})
                if not where.matches(_Paths(fields)):
                    continue
            if self.ids is not None:
                row_id = id_of(position, record)
                known = known or [row_id]
                if row_id not in self.ids:
                    continue
                missing.pop(row_id, None)
            chosen.append(position)
            if self.stratify is not None:
                strata.append(self._stratum(source, position, fields))
        if missing:
            one = next(iter(missing))
            raise DataError(
                f"data.ids: {source.name} has no row {one!r}"
                + (suggest(one, known) or (f"; its first id is {known[0]!r}" if known else "; it is empty"))
            )
        if not chosen and seen:
            raise DataError(f"data.where={self.where} picks none of the {seen:,} rows of {source.name}")
        return chosen, strata

    def _stratum(self, source: Source, position: int, fields: Fields) -> str:
        try:
            return str(inside(fields, str(self.stratify)))
        except KeyError:
            hint = suggest(str(self.stratify), fields) or ";"
            told = f"no column {self.stratify!r}, which data.stratify names{hint} the columns are {', '.join(map(repr, fields))}"
            raise DataError(f"{source.place(position)} has {told}") from None

    def _sampled(self, kept: range, strata: list[Any]) -> Sequence[int]:
        if self.sample is None or self.sample >= len(kept):
            return kept
        dice = random.Random(self.seed)  # noqa: S311 - a sample, not a secret
        if self.stratify is None:
            return sorted(dice.sample(kept, self.sample))
        groups: dict[str, list[int]] = defaultdict(list)
        for at in kept:
            groups[strata[at]].append(at)
        counts = shares({name: len(group) for name, group in groups.items()}, self.sample)
        return sorted(at for name, group in groups.items() for at in dice.sample(group, counts[name]))


def shares(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Return how many of `total` each group gets: in proportion to its size, by largest remainders (Hamilton's method).

    Args:
        sizes: the size of each group.
        total: at most the sum of the sizes.
    """
    all_of_them = sum(sizes.values())
    counts = {name: total * size // all_of_them for name, size in sizes.items()}
    left = total - sum(counts.values())
    by_rest = sorted(sizes, key=lambda name: -(total * sizes[name] % all_of_them))
    for name in by_rest[:left]:
        counts[name] += 1
    return counts


class _Paths(Mapping[str, Any]):
    """The fields of a row by path: ``answers.text`` is found inside the column `answers`."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def __getitem__(self, path: str) -> Any:
        return self._fields[path] if path in self._fields else inside(self._fields, path)

    def __contains__(self, path: object) -> bool:
        try:
            self[str(path)]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)
