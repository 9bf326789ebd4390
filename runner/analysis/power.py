"""Plan a comparison from runs at hand: how many rows or repeats find a difference of a given size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from runner.analysis.pairs import Side
from runner.errors import ConfigError, RecordError
from runner.stats.power import ALPHA, POWER, Noise, difference_found, repeats_needed, rows_needed, variances
from runner.stats.units import mean_and_stderr, units_of
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.analysis.pairs import Source


class Plan(msgspec.Struct, frozen=True):
    """The rows and repeats that a paired comparison of two runs takes, by the noise of runs at hand.

    Attributes:
        score: the score that is compared.
        difference: the difference of its means that is to be found.
        alpha, power: the level of the two-sided test, and the chance that it finds the difference.
        rows, repeats: rows of the runs at hand that have the score, and repeats per row (the fewest of any row).
        correlation: of the rows' means between two runs: measured from two, assumed (0, or as given) with one.
        measured: whether the correlation was measured.
        variance_rows, variance_repeats: variance of a row's difference; see `runner.stats.power.Noise`.
        clusters: the factor by which clusters of rows increase the variance of the mean; 1 without clusters.
        rows_needed: rows that are needed with as many repeats as the runs have.
        repeats_needed: repeats per row that are needed with as many rows; None: no number is enough, or the runs have no repeats
            that would show their noise.
        difference_found: the smallest difference that as many rows and repeats find; None: there are too few rows for any.
    """

    score: str
    difference: float
    alpha: float
    power: float
    rows: int
    repeats: int
    correlation: float | None
    measured: bool
    variance_rows: float
    variance_repeats: float
    clusters: float
    rows_needed: int
    repeats_needed: int | None
    difference_found: float | None


def plan(
    run: Source,
    other: Source | None = None,
    *,
    difference: float,
    score: str | None = None,
    correlation: float = 0.0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> Plan:
    """Say how many rows, or repeats of each row, a paired comparison needs to find a difference.

    Args:
        run: a run at hand, whose rows vary as those of the planned runs will.
        other: a second one over the same rows, such as an earlier version: the correlation of their rows is measured.
        difference: of the means, in units of the score, above 0.
        score: which score; None: the primary one.
        correlation: of the rows' means between the two runs that are planned, if there is no `other`; 0 is the worst case.
        alpha: level of the two-sided test.
        power: the chance that the test finds the difference.

    Raises:
        ConfigError: a number is out of its range, there is no such score, or its values do not vary.
        RecordError: a run cannot be read, or fewer than two rows have the score.
    """
    _check(difference, correlation, alpha, power)
    sides = [Side(source, name) for source, name in ((run, "A"), (other, "B")) if source is not None]
    name = _score(sides, score)
    rows = [_scores(side, name) for side in sides]
    common = [row for row in rows[0] if all(row in one for one in rows)]
    if len(common) < 2:  # noqa: PLR2004
        raise RecordError(f"{sides[0].name}: fewer than two rows have the score '{name}'; there is nothing to plan with")
    noise, repeats, effect, measured = _noise(rows, common, sides[0].clusters, correlation)
    if noise.of(repeats) <= 0:
        raise ConfigError(f"the score '{name}' does not vary in {sides[0].name}: give a run in which it does, to plan with")
    test = {"alpha": alpha, "power": power}
    return Plan(
        score=name,
        difference=difference,
        alpha=alpha,
        power=power,
        rows=len(common),
        repeats=repeats,
        correlation=measured if len(sides) > 1 else correlation,
        measured=len(sides) > 1,
        variance_rows=noise.rows,
        variance_repeats=noise.repeats,
        clusters=effect,
        rows_needed=rows_needed(noise.of(repeats), difference, **test),
        repeats_needed=repeats_needed(noise, difference, len(common), **test) if noise.repeats else None,
        difference_found=difference_found(noise.of(repeats), len(common), **test),
    )


def _noise(
    rows: Sequence[Mapping[str, list[float]]], common: Sequence[str], clusters: Mapping[str, str], correlation: float
) -> tuple[Noise, int, float, float | None]:
    """Return the noise of a row's difference, the repeats, the effect of clusters on it, and the correlation of two runs."""
    parts = [variances([one[row] for row in common]) for one in rows]
    means = [[math.fsum(one[row]) / len(one[row]) for row in common] for one in rows]
    repeats = min(len(one[row]) for one in rows for row in common)
    within = sum(part[1] for part in parts) * (2 if len(rows) == 1 else 1)
    if len(rows) == 1:
        noise, spread, measured = Noise(2 * (1 - correlation) * parts[0][0], within), means[0], None
    else:
        spread, measured = [other - one for one, other in zip(*means, strict=True)], _correlation(*means)
        noise = Noise(max(0.0, variances([[value] for value in spread])[0] - within / repeats), within)
    effect = _effect(spread, [clusters.get(row) for row in common])
    return Noise(noise.rows * effect, noise.repeats * effect), repeats, effect, measured


def _check(difference: float, correlation: float, alpha: float, power: float) -> None:
    if not (math.isfinite(difference) and difference > 0):
        raise ConfigError(f"difference={difference:g}: give the size of the difference, above 0, such as 0.05")
    if not -1 <= correlation < 1:
        raise ConfigError(f"correlation={correlation:g}: a correlation lies between -1 and 1 (1 itself leaves no noise)")
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise ConfigError(f"{name}={value:g}: lies between 0 and 1, such as {ALPHA if name == 'alpha' else POWER}")
    if power <= alpha / 2:
        raise ConfigError(f"power={power:g}: has to be above alpha / 2, which chance alone reaches")


def _score(sides: list[Side], wanted: str | None) -> str:
    common = [name for name in sides[0].scores if all(name in side.scores for side in sides)]
    if wanted is None and common:
        return common[0]
    if wanted in common:
        return str(wanted)
    hint = suggest(wanted, common) if wanted else ""
    raise ConfigError(f"there is no score '{wanted or ''}' in {' and '.join(side.name for side in sides)}{hint or ';'} "
                      f"there is {', '.join(common) or 'none'}")  # fmt: skip


def _scores(side: Side, name: str) -> dict[str, list[float]]:
    """Return the finite scores of each row."""
    found: dict[str, list[float]] = {}
    scores = side.score(name)
    for (row, _), at in side.at.items():
        if side.status[at] != "error" and (value := scores[at]) is not None:
            found.setdefault(row, []).append(value)
    return found


def _effect(values: list[float], clusters: list[str | None]) -> float:
    """Return how many times larger clusters make the variance of the mean."""
    if not any(clusters):
        return 1.0
    _, clustered = mean_and_stderr(units_of(values, [cluster or index for index, cluster in enumerate(clusters)]))
    _, plain = mean_and_stderr(units_of(values))
    return (clustered / plain) ** 2 if clustered and plain else 1.0


def _correlation(one: list[float], other: list[float]) -> float | None:
    """Return Pearson's correlation; None if one side does not vary."""
    a, b = math.fsum(one) / len(one), math.fsum(other) / len(other)
    products = math.fsum((x - a) * (y - b) for x, y in zip(one, other, strict=True))
    squares = math.fsum((x - a) ** 2 for x in one) * math.fsum((y - b) ** 2 for y in other)
    return products / math.sqrt(squares) if squares else None
