"""Rank the cells of a sweep on the rows that they have in common, and say what each rank stands on.

A cell that has scored less than nine tenths of its samples (`runner.records.summary.ENOUGH`) is ``partial``, as its mean may be
luck. It is never the best, comes after the ranked cells, and takes no part in choosing the common rows. If ranked cells have less
than half of their rows in common, as with other data in each, each is ranked on its own rows.

Scores of different judges are not compared: cells that were judged by one judge are ranked among themselves, and none is the best
of all.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from runner.stats.ties import row_means, tied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from runner.analysis.same import Asked
    from runner.records.folder import Mark

_COUNTED = 1_000_000
"""Samples of a sweep up to which each is looked at for a twin in another cell; of more, as many rows are."""


class Entrant(NamedTuple):
    """A cell as it is ranked.

    Attributes:
        id: names it.
        mean: its primary score, over its own rows; None without one.
        samples, scored: rows × repeats, and how many of them have scores.
        is_ranked: whether these are enough.
        data: the fingerprint of its rows, if known.
        asked: what its samples were asked.
        marks: reads its samples.
        judge: who gave the score, as `runner.analysis.judges.judge_of` says; nothing for scores that are computed.
    """

    id: str
    mean: float | None
    samples: int
    scored: int
    is_ranked: bool
    data: str | None
    asked: Asked
    marks: Callable[[], Iterable[Mark]]
    judge: object = None


class Standing(NamedTuple):
    """Where a cell stands.

    Attributes:
        rank: from 1, among the cells of its judge; None: it is not ranked.
        word: ``best``, ``tied`` (its difference from the best one may be chance), ``partial`` (too few samples scored) or None.
        tied: likewise; None: unknown.
        left_out: samples that are in no score, or still owed.
        mean: the score that it is ranked by, on the rows that all ranked cells have scored; None: it is not ranked.
        rows: how many these are; None: all rows of the cell.
        same_as, same: the cell that has answers to the same requests, and how many; None and 0: there is none.
        judge: the number of its judge, from 1, if ranked cells have different ones: `word` is then among the cells of this one.
    """

    rank: int | None = None
    word: str | None = None
    tied: bool | None = None
    left_out: int = 0
    mean: float | None = None
    rows: int | None = None
    same_as: str | None = None
    same: int = 0
    judge: int | None = None

    @property
    def is_best(self) -> bool:
        """Return whether it is the best of all cells, which have one judge, or none."""
        return self.word == "best" and self.judge is None


def rank(cells: Sequence[Entrant], score: str, *, lower_is_better: bool) -> dict[str, Standing]:
    """Return the standing of each cell by its id: the best first, partial cells after ranked ones, cells without a score last.

    Where cells have different judges, those of one judge stand together.

    Args:
        cells: in any order; equal cells keep theirs.
        score: the name of the primary score.
        lower_is_better: rank the smallest mean first.
    """
    sign = 1 if lower_is_better else -1
    ranked = [cell for cell in cells if cell.is_ranked and cell.mean is not None]
    common = _common(ranked, score)
    means = {cell.id: _mean(cell, score, common) for cell in ranked}
    others = [cell for cell in cells if cell.id not in means]
    others.sort(key=lambda cell: math.inf if cell.mean is None else sign * cell.mean)
    same = _same(cells)
    groups = _by_judge(ranked)
    standings: dict[str, Standing] = {}
    for number, group in enumerate(groups, 1):
        group.sort(key=lambda cell: sign * means[cell.id][0])
        for cell, (place, is_tied) in zip(group, _places(group, score), strict=True):
            word = "best" if place == 1 else "tied" if is_tied else None
            left_out, judge = cell.samples - cell.scored, number if len(groups) > 1 else None
            (mean, rows), (twin, count) = means[cell.id], same.get(cell.id, (None, 0))
            standings[cell.id] = Standing(place, word, is_tied, left_out, mean, rows, twin, count, judge)
    for cell in others:
        word = None if cell.mean is None else "partial"
        twin, count = same.get(cell.id, (None, 0))
        standings[cell.id] = Standing(None, word, None, cell.samples - cell.scored, same_as=twin, same=count)
    return standings


def _by_judge(ranked: Sequence[Entrant]) -> list[list[Entrant]]:
    """Return the cells of each judge, in the order of their first cells."""
    groups: list[list[Entrant]] = []
    for cell in ranked:
        group = next((group for group in groups if group[0].judge == cell.judge), None)
        if group is None:
            groups.append([cell])
        else:
            group.append(cell)
    return groups


def _places(group: Sequence[Entrant], score: str) -> Iterator[tuple[int, bool | None]]:
    """Yield the place of each of the cells of one judge, best first, and whether it is tied with the first one."""
    best = _row_means(group[0], score) if len(group) > 1 else {}
    clusters = _clusters(group[0]) if best else {}
    for place, cell in enumerate(group, 1):
        yield place, None if place == 1 else tied(best, _row_means(cell, score), clusters)


def _common(ranked: Sequence[Entrant], score: str) -> set[str] | None:
    """Return the rows that all these cells have scored; None: all of each cell's, or less than half of those of one cell."""
    if len(ranked) < 2 or (len({cell.data for cell in ranked}) == 1 and all(cell.scored == cell.samples for cell in ranked)):  # noqa: PLR2004
        return None
    first, *others = ranked
    common = set(_row_means(first, score))
    most = len(common)
    for cell in others:
        rows = _row_means(cell, score).keys()
        most = max(most, len(rows))
        common &= rows
    return common if 2 * len(common) >= most else None


def _mean(cell: Entrant, score: str, common: set[str] | None) -> tuple[float, int | None]:
    """Return the mean of a cell over the common rows, and how many these are; None: all of its own."""
    assert cell.mean is not None
    if common is None:
        return cell.mean, None
    values = [value for row, value in _row_means(cell, score).items() if row in common]
    return math.fsum(values) / len(values), len(values)


def _row_means(cell: Entrant, score: str) -> dict[str, float]:
    return row_means((mark.id, mark.scores[score]) for mark in cell.marks() if score in mark.scores)


def _clusters(cell: Entrant) -> dict[str, str]:
    """Return the cluster of each row that has one."""
    return {mark.id: mark.cluster for mark in cell.marks() if mark.cluster is not None}


def _same(cells: Sequence[Entrant]) -> dict[str, tuple[str, int]]:
    """Return, for each cell with answers to requests of an earlier one, that cell and the number of these answers."""
    step = 1 + sum(cell.samples for cell in cells) // _COUNTED
    first: dict[int, str] = {}
    found: dict[str, tuple[str, int]] = {}
    for cell in cells:
        twins: Counter[str] = Counter()
        for mark in cell.marks():
            if step > 1 and hash(mark.id) % step:
                continue
            owners = [first.setdefault(identity, cell.id) for identity in cell.asked.identities(mark)]
            twins.update({owner for owner in owners if owner != cell.id})
        if twins:
            ((twin, count),) = twins.most_common(1)
            found[cell.id] = twin, count * step
    return found
