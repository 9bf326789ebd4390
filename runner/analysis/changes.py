"""The difference of one score between two runs, its bounds if samples were left out, and the verdict on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

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


def change(
    pairs: Pairs, name: str, clusters: Mapping[str, Hashable] | None, level: float, *, lower_is_better: bool
) -> ScoreChange:
    """Return the change of the score `name`, without a verdict, which needs the p-values of all changes.

    Raises:
        ConfigError: a row has no cluster.
    """
    found = list(pairs.scored(name))
    means = _by_row(found)
    left_out_a, left_out_b = pairs.left_out(name)
    return ScoreChange(
        mean_a=_mean([one for one, _ in means.values()]),
        mean_b=_mean([other for _, other in means.values()]),
        difference=_difference(found, clusters, level),
        samples=len(found),
        unscored=pairs.unscored(name),
        gained=sum(other > one for _, one, other in found),
        lost=sum(other < one for _, one, other in found),
        lower_is_better=lower_is_better,
        left_out_a=left_out_a,
        left_out_b=left_out_b,
        bounds=None if pairs.measures(name) else _bounds(found, list(pairs.one_sided(name)), clusters, level),
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


def _bounds(
    found: Sequence[tuple[Slot, float, float]],
    one_sided: Sequence[tuple[Slot, float | None, float | None]],
    clusters: Mapping[str, Hashable] | None,
    level: float,
) -> Bounds | None:
    """Return the extreme differences, if something was left out of one side alone, and the score is within 0 and 1."""
    known = [value for _, *pair in (*found, *one_sided) for value in pair if value is not None]
    if not one_sided or not all(0 <= value <= 1 for value in known):
        return None
    filled = (
        [(slot, a if one is None else one, b if other is None else other) for slot, one, other in one_sided]
        for a, b in ((1.0, 0.0), (0.0, 1.0))
    )
    least, most = (_difference([*found, *extreme], clusters, level, resamples=0) for extreme in filled)
    return Bounds(least, most, len(one_sided))


def _difference(
    found: Sequence[tuple[Slot, float, float]], clusters: Mapping[str, Hashable] | None, level: float, **how: int
) -> Paired:
    """Return B - A over rows; the repeats of a row are averaged before."""
    means = _by_row(found)
    groups = None if clusters is None else [_cluster(clusters, row) for row in means]
    binary = len(found) == len(means) and all(value in (0, 1) for _, *pair in found for value in pair)
    bounded = all(0 <= value <= 1 for _, *pair in found for value in pair)
    return paired([other - one for one, other in means.values()], groups, binary=binary, bounded=bounded, level=level, **how)


def _by_row(found: Iterable[tuple[Slot, float, float]]) -> dict[str, tuple[float, float]]:
    """Return the means of A and B over the repeats of each row."""
    found = list(found)
    single = {row: (one, other) for (row, _), one, other in found}
    if len(single) == len(found):  # no repeats
        return single
    rows: dict[str, tuple[list[float], list[float]]] = {}
    for (row, _), one, other in found:
        in_a, in_b = rows.setdefault(row, ([], []))
        in_a.append(one)
        in_b.append(other)
    return {row: (math.fsum(in_a) / len(in_a), math.fsum(in_b) / len(in_b)) for row, (in_a, in_b) in rows.items()}


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _cluster(clusters: Mapping[str, Hashable], row: str) -> Hashable:
    try:
        return clusters[row]
    except KeyError:
        raise ConfigError(f"row {row!r} has no cluster") from None
