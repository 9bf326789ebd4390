"""Coverage: how often a printed 95 % interval holds the true mean, beside what inspect_ai, lm-eval and mean ± 1.96 SE give.

python -m tests.bench.coverage [--quick] [--record]

Every formula gets the same draws. Ours is the shipped one, written with arrays, and compared with the shipped function on some
draws of each cell. Binary scores of independent rows are not drawn: each outcome is weighed with its probability.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from runner.stats.intervals import ALIKE, LEVEL, UNSEEN, share_interval
from runner.stats.sequential import SequentialTest
from runner.stats.stats import paired
from runner.stats.units import Spread
from tests.bench.harness import parser, progress, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Array = NDArray[np.float64]
Ends = tuple[Array, Array]

SHARES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98)
ROWS = (20, 30, 50, 100, 200, 500, 1000, 2000)
CLUSTERS = (5, 10, 20, 50, 200)
WITHIN = (0.0, 0.05, 0.2)
"""Correlations of two rows of one cluster."""

TAIL = (1 - LEVEL) / 2
STOPPED = ((0.8, 0.8), (0.8, 0.78), (0.8, 0.75), (0.8, 0.85), (0.8, 0.9), (0.95, 0.95), (0.95, 0.99), (0.5, 0.5))
"""Thresholds and true means with which stopping early is simulated."""

CHECKED = 3
"""Draws of each cell on which ours is compared with the shipped function."""


class Cell(NamedTuple):
    """Many simulated runs with one true mean, in the numbers that intervals are made of; see `runner.stats.intervals.Spread`."""

    kind: str
    where: str
    truth: float
    mean: Array
    variance: Array
    samples: int
    units: int
    size: float
    weights: Array | None = None


def cell(kind: str, where: str, truth: float, totals: Array, sizes: Array) -> Cell:
    """Sum up runs: `totals` has a row per run and a column per unit."""
    samples, units = int(sizes.sum()), len(sizes)
    mean = totals.sum(axis=1) / samples
    variance = units / (units - 1) * ((totals - sizes * mean[:, None]) ** 2).sum(axis=1) / samples**2
    return Cell(kind, where, truth, mean, variance, samples, units, float((sizes**2).sum() / samples))


# --- the formulas


def ours(runs: Cell) -> Ends:
    """The shipped interval of scores between 0 and 1 (`runner.stats.intervals.share_interval`), with arrays."""
    spread = runs.mean * (1 - runs.mean)
    observed = runs.variance * (runs.samples - 1) / np.where(spread > 0, spread, 1)
    rarer = runs.samples * np.minimum(runs.mean, 1 - runs.mean) / np.maximum(observed, 1)
    observed = observed + UNSEEN / (UNSEEN + rarer) * np.maximum(0, 1 - observed)
    raised = observed + ALIKE / (ALIKE + rarer**2) * np.maximum(0, runs.size - observed)
    effect = np.where(spread > 0, raised, runs.size)
    few = _t(runs.samples - 1) / _t(max(1, runs.samples / runs.size - 1)) if runs.units < runs.samples else 1.0
    effective = runs.samples / effect * few**2
    hits = runs.mean * effective
    low = special.betaincinv(np.maximum(hits, 1e-300), effective - hits + 1, TAIL)
    high = special.betaincinv(hits + 1, np.maximum(effective - hits, 1e-300), 1 - TAIL)
    return np.where(hits > 0, low, 0.0), np.where(hits < effective, high, 1.0)


def plain(runs: Cell) -> Ends:
    """Mean ± 1.96 standard errors, robust to clusters.

    This is what inspect_ai prints: `stderr` of inspect_ai/scorer/_metrics/std.py (commit 0814436), the sample standard deviation
    with n - 1 over the root of n, and with `cluster` the clustered error with C / (C - 1). It prints the error, not the interval.
    """
    margin = 1.96 * np.sqrt(runs.variance)
    return runs.mean - margin, runs.mean + margin


def naive(runs: Cell) -> Ends:
    """Mean ± 1.96 standard errors of independent samples.

    This is lm-eval's `mean_stderr` (lm_eval/api/metrics.py, commit 001722b): it knows no clusters. For totals of scores of 0
    and 1 the sample variance is that of the mean.
    """
    if runs.units == runs.samples:
        return plain(runs)
    margin = 1.96 * np.sqrt(runs.mean * (1 - runs.mean) / (runs.samples - 1))
    return runs.mean - margin, runs.mean + margin


def _t(df: float) -> float:
    return float(stats.t.ppf(1 - TAIL, df))


# --- the draws


def exact(rng: np.random.Generator, times: int) -> Iterator[Cell]:
    """Scores of 0 and 1 from independent rows, by enumeration, on a fine grid of shares."""
    for n in ROWS:
        hits = np.arange(n + 1) / n
        for p in np.linspace(0.02, 0.98, 97):
            weights = stats.binom.pmf(np.arange(n + 1), n, p)
            yield Cell("0 or 1", f"n={n}", float(p), hits, hits * (1 - hits) / (n - 1), n, n, 1.0, weights)


def between(rng: np.random.Generator, times: int) -> Iterator[Cell]:
    """Scores between 0 and 1 from independent rows, of six shapes."""
    for n in (20, 50, 200, 1000):
        runs = min(times, 2_000_000 // n)
        for p in SHARES:
            for shape, draw in shapes(rng, p):
                yield cell(f"0 to 1, {shape}", f"n={n}", p, draw((runs, n)), np.ones(n))


def shapes(rng: np.random.Generator, p: float) -> Iterator[tuple[str, Callable[[tuple[int, int]], Array]]]:
    """Yield distributions on [0, 1] with mean `p`, by name."""
    near, mirrored = min(p, 1 - p), p > 0.5

    def rare(shape: tuple[int, int]) -> Array:
        values = np.where(rng.random(shape) < 2 * near, rng.random(shape), 0.0)
        return 1 - values if mirrored else values

    def one_value(shape: tuple[int, int]) -> Array:
        return np.where(rng.random(shape) < 0.03, 0.0, p / 0.97) if p < 0.97 else (rng.random(shape) < p).astype(float)

    yield "wide (beta, a + b = 1)", lambda shape: rng.beta(p, 1 - p, shape)
    yield "narrow (beta, a + b = 10)", lambda shape: rng.beta(10 * p, 10 * (1 - p), shape)
    yield "three values", lambda shape: rng.binomial(2, p, shape) / 2
    yield (
        "like F1 (60 % 0 or 1)",
        lambda shape: np.where(
            rng.random(shape) < 0.6, (rng.random(shape) < p).astype(float), rng.beta(3 * p, 3 * (1 - p), shape)
        ),
    )
    yield "mostly one end", rare
    yield "one value, 3 % zeros", one_value


def repeats(rng: np.random.Generator, times: int) -> Iterator[Cell]:
    """Scores of 0 and 1 of rows that are asked several times."""
    for rows, each in ((20, 5), (100, 5), (400, 3)):
        for p in SHARES:
            for alike in (0.2, 0.8):
                sizes = np.full(rows, each)
                yield cell("0 or 1, repeats", f"{rows} rows x {each}, ICC {alike}", p, _hits(rng, p, sizes, alike, times), sizes)


def clustered(rng: np.random.Generator, times: int) -> Iterator[Cell]:
    """Scores of 0 and 1 in clusters of equal and of unequal sizes."""
    for units in CLUSTERS:
        for n in (20, 100, 400, 2000):
            for sizes, how in ((np.full(units, n // units), "equal"), (uneven(units, n), "unequal")):
                if n < 2 * units:
                    continue
                for p in SHARES:
                    for alike in WITHIN:
                        where = f"{units} {how} clusters, n={n}, ICC {alike}"
                        yield cell("0 or 1, clusters", where, p, _hits(rng, p, sizes, alike, times), sizes)


def uneven(units: int, n: int) -> Array:
    """Sizes of clusters that differ by a factor of some ten."""
    weights = np.exp(np.random.default_rng(units).normal(0, 0.8, units))
    return np.maximum(1, np.round(weights / weights.sum() * n))


def _hits(rng: np.random.Generator, p: float, sizes: Array, alike: float, times: int) -> Array:
    """Draw hits per unit, whose chances are drawn first (beta): rows of one unit are correlated by `alike`."""
    shape = (times, len(sizes))
    chance = rng.beta(p * (1 / alike - 1), (1 - p) * (1 / alike - 1), shape) if alike else np.full(shape, p)
    return rng.binomial(sizes.astype(int), chance).astype(float)


KINDS = (exact, between, repeats, clustered)


# --- paired differences


class Pairs(NamedTuple):
    """Differences of many pairs of runs: a row per pair, a column per row of the data, and the cluster of each column."""

    kind: str
    where: str
    truth: float
    differences: Array
    clusters: NDArray[np.int64]


def our_difference(runs: Pairs) -> Ends:
    """The shipped interval (`runner.stats.intervals.difference_interval`), with arrays."""
    sizes = np.bincount(runs.clusters)
    up, down = (cell("", "", 0.0, _totals(runs, sign), sizes) for sign in (1, -1))
    one, other = (_totals(runs, sign) - sizes * part.mean[:, None] for sign, part in ((1, up), (-1, down)))
    squares = (one**2).sum(axis=1) * (other**2).sum(axis=1)
    related = np.where(squares > 0, (one * other).sum(axis=1) / np.sqrt(np.where(squares > 0, squares, 1)), 0.0)
    (up_low, up_high), (down_low, down_high) = ours(up), ours(down)
    mean = up.mean - down.mean

    def reach(a: Array, b: Array) -> Array:
        return np.sqrt(np.maximum(0, a * a + b * b - 2 * related * a * b))

    low = mean - reach(up.mean - up_low, down_high - down.mean)
    return np.maximum(-1, low), np.minimum(1, mean + reach(up_high - up.mean, down.mean - down_low))


def _totals(runs: Pairs, sign: int) -> Array:
    """What is gained (1) or lost (-1) in each cluster."""
    values = np.maximum(0, sign * runs.differences)
    if len(np.unique(runs.clusters)) == len(runs.clusters):
        return values
    return np.stack([values[:, runs.clusters == cluster].sum(axis=1) for cluster in np.unique(runs.clusters)], axis=1)


def _clustered(runs: Pairs) -> Ends:
    """The mean difference and its standard error, robust to clusters."""
    found = cell("", "", 0.0, _totals(runs, 1) - _totals(runs, -1), np.bincount(runs.clusters))
    return found.mean, np.sqrt(found.variance)


def plain_difference(runs: Pairs) -> Ends:
    """Mean difference ± 1.96 paired standard errors, robust to clusters (Miller 2024)."""
    mean, error = _clustered(runs)
    return mean - 1.96 * error, mean + 1.96 * error


def pairs(rng: np.random.Generator, times: int) -> Iterator[Pairs]:
    """Two runs over the same rows; the second one loses some of the rows that the first has right, and gains some others."""
    for n in (20, 50, 200, 1000):
        runs = min(times, 1_000_000 // n)
        for p in SHARES:
            for kept, gained in ((0.95, 0.3), (0.8, 0.02), (0.98, 0.0)):
                first = rng.random((runs, n)) < p
                second = np.where(first, rng.random((runs, n)) < kept, rng.random((runs, n)) < gained)
                truth = -p * (1 - kept) + (1 - p) * gained
                where = f"n={n}, p={p}, loses {1 - kept:.0%}, gains {gained:.0%}"
                yield Pairs("0 or 1, difference", where, truth, second.astype(float) - first, np.arange(n))
            a, b = 4 * p, 4 * (1 - p)
            one, other, shift = rng.beta(a, b, (runs, n)), rng.beta(a, b, (runs, n)), rng.random((runs, n)) < 0.5
            where = f"n={n}, p={p}, half of the rows drawn again"
            yield Pairs("0 to 1, difference", where, 0.0, np.where(shift, other - one, 0.0), np.arange(n))


def clustered_pairs(rng: np.random.Generator, times: int) -> Iterator[Pairs]:
    """The same in clusters, each of which has its own chance of losing a row."""
    for units in CLUSTERS:
        for n in (100, 400, 2000):
            if n < 2 * units:
                continue
            runs, clusters = min(times, 1_000_000 // n), np.arange(n) % units
            for lost in (0.02, 0.1, 0.4):
                for alike in WITHIN:
                    chance = _chances(rng, lost, alike, (runs, units))[:, clusters]
                    worse = rng.random((runs, n)) < chance
                    better = (~worse) & (rng.random((runs, n)) < 0.05)
                    truth = -lost + (1 - lost) * 0.05
                    where = f"{units} clusters, n={n}, loses {lost:.0%}, ICC {alike}"
                    yield Pairs("0 or 1, difference, clusters", where, truth, better.astype(float) - worse, clusters)


def _chances(rng: np.random.Generator, p: float, alike: float, shape: tuple[int, int]) -> Array:
    return rng.beta(p * (1 / alike - 1), (1 - p) * (1 / alike - 1), shape) if alike else np.full(shape, p)


# --- stopping early


def stopping(rng: np.random.Generator, times: int) -> str:
    """How often `expect.stop_early` decides wrongly, how often it decides, and how many of 2,000 rows it asks."""
    lines = ["| threshold | true mean | passes | fails | undecided | rows asked, mean |", "|---|---|---|---|---|---|"]
    for threshold, mean in STOPPED:
        ends = [_stopped(threshold, rng.random(2000) < mean) for _ in range(times)]
        shares = [sum(end == verdict for end, _ in ends) / times for verdict in ("pass", "fail", "undecided")]
        asked = sum(rows for _, rows in ends) / times
        lines.append(f"| {threshold} | {mean} | {' | '.join(f'{share:.1%}' for share in shares)} | {asked:,.0f} |")
    return "\n".join(lines)


def _stopped(threshold: float, scores: NDArray[np.bool_]) -> tuple[str, int]:
    test = SequentialTest(threshold)
    for row, score in enumerate(scores, 1):
        test.add(float(score))
        if test.above or test.below:
            return ("pass" if test.above else "fail"), row
    return "undecided", len(scores)


# --- the table


class Tallied(NamedTuple):
    """Coverage of one formula on one cell, and the mean width of its intervals."""

    kind: str
    where: str
    covered: float
    width: float


def measure(kind: str, where: str, truth: float, ends: Ends, weights: Array | None) -> Tallied:
    """Return the share of intervals that hold the truth."""
    low, high = ends
    slack = 1e-12  # a bound that equals the truth but for rounding holds it
    return Tallied(
        kind,
        where,
        float(np.average((low - slack <= truth) & (truth <= high + slack), weights=weights)),
        float(np.average(high - low, weights=weights)),
    )


def simulate(times: int, rng: np.random.Generator) -> dict[str, list[Tallied]]:
    """Measure every formula on every cell."""
    found: dict[str, list[Tallied]] = {"ours": [], "inspect_ai": [], "lm-eval": []}
    for draws in KINDS:
        progress(draws.__name__)
        for runs in draws(rng, times):
            _check_scores(runs)
            where = f"{runs.where}, p={runs.truth:.3g}"
            for name, formula in (("ours", ours), ("inspect_ai", plain), ("lm-eval", naive)):
                found[name].append(measure(runs.kind, where, runs.truth, formula(runs), runs.weights))
    for draw_pairs in (pairs, clustered_pairs):
        progress(draw_pairs.__name__)
        for one in draw_pairs(rng, times):
            _check_differences(one)
            for name, formula_of_pairs in (("ours", our_difference), ("inspect_ai", plain_difference)):
                found[name].append(measure(one.kind, one.where, one.truth, formula_of_pairs(one), None))
    return found


def _check_scores(runs: Cell) -> None:
    """Compare ours with the shipped function on a few draws."""
    low, high = ours(runs)
    for index in np.linspace(0, len(runs.mean) - 1, CHECKED).astype(int):
        error = math.sqrt(runs.variance[index])
        shipped = share_interval(Spread(float(runs.mean[index]), error, runs.samples, runs.units, runs.size))
        if not np.allclose(shipped, (low[index], high[index]), atol=1e-6):
            raise AssertionError(f"{runs.kind}, {runs.where}: {shipped} is shipped, {low[index], high[index]} was simulated")


def _check_differences(runs: Pairs) -> None:
    low, high = our_difference(runs)
    for index in range(CHECKED):
        shipped = paired(runs.differences[index].tolist(), runs.clusters.tolist(), bounded=True).ci
        if shipped is None or not np.allclose(shipped, (low[index], high[index]), atol=1e-6):
            raise AssertionError(f"{runs.kind}, {runs.where}: {shipped} is shipped, {low[index], high[index]} was simulated")


def table(found: dict[str, list[Tallied]]) -> str:
    """Lay out, for each kind of scores: mean and least coverage of each formula, where the least is, and the widths."""
    heads = ["scores", "cells", "ours: mean", "least", "where", "width", "mean ± 1.96 SE (inspect_ai): mean", "least", "width",
             "lm-eval: mean", "least"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for kind in [*dict.fromkeys(one.kind for one in found["ours"]), None]:
        mine, theirs, naively = ([one for one in found[name] if kind in (None, one.kind)] for name in found)
        least = min(mine, key=lambda one: one.covered)
        cells = [kind or "all", f"{len(mine):,}", *_told(mine), least.where, f"{_mean(mine, 'width'):.3f}"]
        cells += [*_told(theirs), f"{_mean(theirs, 'width'):.3f}", *(_told(naively) if naively else ("-", "-"))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(cells: list[Tallied]) -> tuple[str, str]:
    return f"{_mean(cells, 'covered'):.1%}", f"{min(one.covered for one in cells):.1%}"


def _mean(cells: list[Tallied], field: str) -> float:
    return sum(getattr(one, field) for one in cells) / len(cells)


def ends_of_the_scale() -> str:
    """What mean ± 1.96 SE covers at the ends of the scale, by enumeration, beside ours."""
    lines = ["| n | true share | ours | mean ± 1.96 SE |", "|---|---|---|---|"]
    for n in (20, 60, 200, 1000):
        for p in (0.02, 0.05, 0.95, 0.98):
            hits = np.arange(n + 1) / n
            runs = Cell("", "", p, hits, hits * (1 - hits) / (n - 1), n, n, 1.0, stats.binom.pmf(np.arange(n + 1), n, p))
            both = [measure("", "", p, formula(runs), runs.weights).covered for formula in (ours, plain)]
            lines.append(f"| {n:,} | {p} | {both[0]:.1%} | {both[1]:.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    args = parser(__doc__).parse_args()
    times = 200 if args.quick else 2000
    rng = np.random.default_rng(20261130)
    about = (
        f"Nominal {LEVEL:.0%}; {times:,} simulated runs per cell (fewer of the largest), the same for every formula. `least` is "
        "the worst cell of that kind. lm-eval's error knows no clusters, and repeats of a row are samples to it."
    )
    text = [about, table(simulate(times, rng))]
    text += ["At the ends of the scale, independent rows, scores of 0 and 1:", ends_of_the_scale()]
    progress("stopping early")
    text += ["Stopping early (`expect.stop_early`), at most 2,000 rows, scores of 0 and 1:"]
    text += [stopping(rng, 50 if args.quick else 500)]
    publish(args, "Coverage", "\n\n".join(text))


if __name__ == "__main__":
    main()
