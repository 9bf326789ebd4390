"""The difference of one score between two runs, its bounds if samples were left out, and the verdict on it."""

from __future__ import annotations

import math
from array import array
from itertools import chain
from operator import gt, lt, sub
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from runner.errors import ConfigError
from runner.stats.stats import Paired, holm, paired

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from runner.analysis.pairs import Pairs, Slot

Verdict = Literal["better", "worse", "tied", "undecided"]

_CASES = ("observed", "least", "most")


class Bounds(msgspec.Struct, frozen=True):
    """The least and the most that B - A can be: samples that one side alone has left out scored 0 or 1, as moves it furthest.

    Manski (1990), "Nonparametric Bounds on Treatment Effects". What both have left out says nothing about their difference.

    Attributes:
        least: A scored 1 and B scored 0 there.
        most: A scored 0 and B scored 1 there.
        samples: how many samples were filled in.
    """

    least: Paired
    most: Paired
    samples: int

    def by_case(self, lower_is_better: bool) -> tuple[Paired, Paired]:
        """Return the worst and the best case for B."""
        return (self.most, self.least) if lower_is_better else (self.least, self.most)


class _Columns(NamedTuple):
    """Scores that both runs have: the row of each, its score in A and in B."""

    rows: list[str]
    in_a: array[float]
    in_b: array[float]


class ScoreChange(msgspec.Struct, frozen=True):
    """The difference of one score between A and B, on the samples that have it in both.

    Attributes:
        mean_a, mean_b: mean over rows, the repeats of a row averaged before; None without rows.
        difference: B - A: see `runner.stats.stats.Paired`. Its `n` is of rows.
        samples: pairs of samples behind it.
        unscored: pairs of answers in which either side lacks the score, or has one that is not finite; not in `samples`.
        left_out_a, left_out_b: samples that A (B) has left out of this score, by status, or has yet to ask (``owed``).
        bounds: B - A, whatever was left out of one side alone may have scored; None: nothing was, or the score has no bounds.
        gained, lost: samples whose score is higher (lower) in B.
        p_adjusted: the p-value, adjusted by Holm for all scores and runs compared at once; None without rows.
        verdict: B is better or worse if ``p_adjusted < 1 - level``, else tied; undecided if a case of `bounds` gives another
            one; None without rows. Intervals come from another method than exact tests and are not adjusted: near
            the level, the interval of a tie may exclude zero.
        lower_is_better: a smaller score is the better one.
    """

    mean_a: float | None
    mean_b: float | None
    difference: Paired
    samples: int
    unscored: int
    gained: int
    lost: int
    lower_is_better: bool = False
    p_adjusted: float | None = None
    verdict: Verdict | None = None
    left_out_a: dict[str, int] = {}
    left_out_b: dict[str, int] = {}
    bounds: Bounds | None = None


class Method(NamedTuple):
    """How differences are tested.

    Attributes:
        level: the confidence level.
        clusters: row id -> group; None: rows are independent.
        resamples: of the bootstrap intervals; 0: none are made.
    """

    level: float
    clusters: Mapping[str, Hashable] | None
    resamples: int


def change(pairs: Pairs, name: str, method: Method, *, lower_is_better: bool) -> ScoreChange:
    """Return the change of the score `name`, without a verdict, which needs the p-values of all changes.

    Raises:
        ConfigError: a row has no cluster.
    """
    found = _columns(pairs.scored(name))
    rows = _by_row(found)
    left_out_a, left_out_b = pairs.left_out(name)
    return ScoreChange(
        mean_a=_mean(rows.in_a),
        mean_b=_mean(rows.in_b),
        difference=_difference(found, rows, method),
        samples=len(found.rows),
        unscored=pairs.unscored(name),
        gained=sum(map(gt, found.in_b, found.in_a)),
        lost=sum(map(lt, found.in_b, found.in_a)),
        lower_is_better=lower_is_better,
        left_out_a=left_out_a,
        left_out_b=left_out_b,
        bounds=None if pairs.measures(name) else _bounds(found, list(pairs.one_sided(name)), method),
    )


def judged(found: Sequence[Mapping[str, ScoreChange]], level: float) -> list[dict[str, ScoreChange]]:
    """Return the changes of several comparisons with their verdicts. Holm's method adjusts all p-values together.

    Args:
        found: the changes of each comparison, by score.
        level: the level of the verdicts.
    """
    cases = [_adjusted(found, case) for case in _CASES]
    return [
        {name: _with_verdict(change, [case.get((index, name)) for case in cases], level) for name, change in changes.items()}
        for index, changes in enumerate(found)
    ]


def _adjusted(found: Sequence[Mapping[str, ScoreChange]], case: str) -> dict[tuple[int, str], float]:
    """Return the adjusted p-values in one case, by comparison and score. Where there are no bounds, that is what was observed."""
    tests = [
        (index, name, p)
        for index, changes in enumerate(found)
        for name, change in changes.items()
        if (p := _in_case(change, case).p) is not None
    ]
    return dict(zip(((index, name) for index, name, _ in tests), holm([p for *_, p in tests]), strict=True))


def _in_case(change: ScoreChange, case: str) -> Paired:
    found: Paired = change.difference if change.bounds is None else getattr(change.bounds, case, change.difference)
    return found


def _with_verdict(change: ScoreChange, adjusted: Sequence[float | None], level: float) -> ScoreChange:
    """Return the change with its verdict; `adjusted` are the p-values of the `_CASES`."""
    p = adjusted[0]
    if p is None or change.difference.mean is None:
        return change
    observed, least, most = (
        _verdict(_in_case(change, case).mean, p, level, lower_is_better=change.lower_is_better)
        for case, p in zip(_CASES, adjusted, strict=True)
    )
    worst, best = (most, least) if change.lower_is_better else (least, most)
    stands = {"better": worst == "better", "worse": best == "worse", "tied": worst != "worse" and best != "better"}
    verdict: Verdict = observed if stands[observed] else "undecided"
    return msgspec.structs.replace(change, p_adjusted=p, verdict=verdict)


def _verdict(mean: float | None, p: float | None, level: float, *, lower_is_better: bool) -> Literal["better", "worse", "tied"]:
    if not mean or p is None or p >= 1 - level:
        return "tied"
    return "better" if (mean > 0) != lower_is_better else "worse"


def _bounds(found: _Columns, one_sided: Sequence[tuple[Slot, float | None, float | None]], method: Method) -> Bounds | None:
    """Return the extreme differences, if something was left out of one side alone, and the score is within 0 and 1."""
    known = [value for _, *pair in one_sided for value in pair if value is not None]
    if not one_sided or not all(0 <= value <= 1 for value in chain(found.in_a, found.in_b, known)):
        return None
    cases = []
    for a, b in ((1.0, 0.0), (0.0, 1.0)):
        filled = _columns((slot, a if one is None else one, b if other is None else other) for slot, one, other in one_sided)
        extreme = _Columns(found.rows + filled.rows, found.in_a + filled.in_a, found.in_b + filled.in_b)
        cases.append(_difference(extreme, _by_row(extreme), method._replace(resamples=0)))
    least, most = cases
    return Bounds(least, most, len(one_sided))


def _difference(found: _Columns, rows: _Columns, method: Method) -> Paired:
    """Return B - A over rows; the repeats of a row are averaged before, as in `rows`."""
    groups = None if method.clusters is None else [_cluster(method.clusters, row) for row in rows.rows]
    return paired(
        array("d", map(sub, rows.in_b, rows.in_a)),
        groups,
        binary=len(found.rows) == len(rows.rows) and all(value in (0, 1) for value in chain(found.in_a, found.in_b)),
        bounded=all(0 <= value <= 1 for value in chain(found.in_a, found.in_b)),
        level=method.level,
        resamples=method.resamples,
    )


def _columns(found: Iterable[tuple[Slot, float, float]]) -> _Columns:
    columns = _Columns([], array("d"), array("d"))
    for (row, _), one, other in found:
        columns.rows.append(row)
        columns.in_a.append(one)
        columns.in_b.append(other)
    return columns


def _by_row(found: _Columns) -> _Columns:
    """Return the means of A and B over the repeats of each row."""
    if len(set(found.rows)) == len(found.rows):  # no repeats
        return found
    rows: dict[str, tuple[list[float], list[float]]] = {}
    for row, one, other in zip(*found, strict=True):
        in_a, in_b = rows.setdefault(row, ([], []))
        in_a.append(one)
        in_b.append(other)
    means = [array("d", [math.fsum(pair[side]) / len(pair[side]) for pair in rows.values()]) for side in (0, 1)]
    return _Columns(list(rows), *means)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _cluster(clusters: Mapping[str, Hashable], row: str) -> Hashable:
    try:
        return clusters[row]
    except KeyError:
        raise ConfigError(f"row {row!r} has no cluster") from None
