"""Judged scores: how often intervals that correct a judge by labels hold the true mean, and how wide they are.

python -m tests.bench.judged [--quick] [--record]

Every formula gets the same draws, beside labels alone, the raw mean of the judge ± 1.96 standard errors, the interval of
ppi_py (`ppi_mean_ci` of ppi-python 0.2.3, with the tuned lambda that is its default) and that of Lee et al. (arXiv 2511.21140).
Ours are the shipped ones, written with arrays, and compared with the shipped functions on some draws of each cell.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from runner.stats.corrected import PRIOR, RARE, Labelled, Rate, allocation, by_posterior, by_rates, by_regression
from runner.stats.intervals import ALIKE, LEVEL, UNSEEN
from tests.bench.harness import parser, progress, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Array = NDArray[np.float64]
Ends = tuple[Array, Array]

TRUTHS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
JUDGES = ((0.6, 0.6), (0.6, 0.98), (0.98, 0.6), (0.7, 0.9), (0.9, 0.7), (0.8, 0.8), (0.9, 0.9), (0.95, 0.95), (0.98, 0.98))
"""Sensitivity and specificity."""
LABELS = (50, 100, 200, 500)
ANSWERS = (200, 1000, 5000)
ELSEWHERE = (0.3, 0.6, 0.9)
"""True shares among the answers that people have labelled, where these are of another run."""

TAIL = (1 - LEVEL) / 2
Z = float(stats.norm.ppf(1 - TAIL))
CHECKED = 2
"""Draws of each cell on which ours is compared with the shipped function."""


class Cell(NamedTuple):
    """Many simulated runs, by counts. `labelled` has a row per run: judged and labelled right, judged right alone, labelled right
    alone, neither. `said` is how many of all `answers` are judged right."""

    truth: float
    judge: tuple[float, float]
    labels: int
    answers: int
    labelled: Array
    said: Array

    @property
    def where(self) -> str:
        """Say which cell it is."""
        return f"{self.truth:.0%} right, judge {self.judge[0]:g}/{self.judge[1]:g}, {self.labels} of {self.answers:,}"


def cells(rng: np.random.Generator, times: int, how: str) -> Iterator[Cell]:
    """Yield the cells whose labels are of the same run, drawn at random, or by verdict as `ostinato labels` does."""
    for truth, judge, labels, answers in itertools.product(TRUTHS, JUDGES, LABELS, ANSWERS):
        if labels > answers:
            continue
        hit, correct = judge
        chances = (truth * hit, (1 - truth) * (1 - correct), truth * (1 - hit), (1 - truth) * correct)
        if how == "random":
            labelled = rng.multinomial(labels, chances, times)
            said = labelled[:, 0] + labelled[:, 1] + rng.binomial(answers - labels, chances[0] + chances[1], times)
        else:
            said = rng.binomial(answers, chances[0] + chances[1], times)
            expected = round(answers * (chances[0] + chances[1]))
            share = allocation([(0.0, answers - expected), (1.0, expected)], labels)[1]
            first = np.clip(share, labels - (answers - said), said)
            right = rng.binomial(first, chances[0] / (chances[0] + chances[1]))
            other = rng.binomial(labels - first, chances[2] / (chances[2] + chances[3]))
            labelled = np.stack([right, first - right, other, labels - first - other], axis=1)
        yield Cell(truth, judge, labels, answers, labelled.astype(float), said.astype(float))


def elsewhere(rng: np.random.Generator, times: int) -> Iterator[Cell]:
    """Yield the cells whose labels are of another run."""
    for truth, judge, labels, answers in itertools.product(TRUTHS, JUDGES, LABELS, ANSWERS):
        hit, correct = judge
        other = ELSEWHERE[(TRUTHS.index(truth) + LABELS.index(labels)) % len(ELSEWHERE)]
        chances = (other * hit, (1 - other) * (1 - correct), other * (1 - hit), (1 - other) * correct)
        said = rng.binomial(answers, truth * hit + (1 - truth) * (1 - correct), times)
        yield Cell(truth, judge, labels, answers, rng.multinomial(labels, chances, times).astype(float), said.astype(float))


# --- the formulas


def posterior(runs: Cell) -> Ends:
    """The shipped `by_posterior`."""
    yes, no = runs.labelled[:, :2], runs.labelled[:, 2:]
    q, a, b = (
        (PRIOR + top, PRIOR + rest)
        for top, rest in ((runs.said, runs.answers - runs.said), (yes[:, 0], yes[:, 1]), (no[:, 0], no[:, 1]))
    )
    (mq, vq), (ma, _), (mb, _) = map(_beta, (q, a, b))
    va, vb = (_of_mean(hits, rest) for hits, rest in (a, b))
    mean = mb + mq * (ma - mb)
    few = (float(stats.t.ppf(1 - TAIL, runs.labels - 2)) / Z) ** 2
    variance = few * ((mq**2 + vq) * va + ((1 - mq) ** 2 + vq) * vb) + (ma - mb) ** 2 * vq
    size = np.maximum(1, mean * (1 - mean) / variance - 1)
    low, high = (special.betaincinv(mean * size, (1 - mean) * size, share) for share in (TAIL, 1 - TAIL))
    share = runs.said / runs.answers
    with np.errstate(invalid="ignore"):
        plain = share * np.nan_to_num(yes[:, 0] / yes.sum(axis=1)) + (1 - share) * np.nan_to_num(no[:, 0] / no.sum(axis=1))
    unseen = ((yes.sum(axis=1) == 0) & (share > 0)) | ((no.sum(axis=1) == 0) & (share < 1))
    found = np.where(unseen, mean, plain)
    return np.minimum(low, found), np.maximum(high, found)


def _of_mean(a: Array, b: Array) -> Array:
    mean = (a + RARE) / (a + b + 2 * RARE)
    return mean * (1 - mean) / np.maximum(1, a + b - 2 * PRIOR)


def _beta(of: tuple[Array, Array]) -> tuple[Array, Array]:
    a, b = of
    return a / (a + b), a * b / (a + b) ** 2 / (a + b + 1)


def fieller(runs: Cell) -> Ends:
    """The shipped `by_rates`."""
    share, of_rows = _adjusted(runs.said, runs.answers, Z * Z)
    (hit, of_hits), (correct, of_correct) = _rates(runs, 2)
    signal, excess = hit + correct - 1, share - (1 - correct)
    a = signal**2 - Z * Z * (of_hits + of_correct)
    b = -2 * excess * signal + 2 * Z * Z * of_correct
    c = excess**2 - Z * Z * (of_rows + of_correct)
    known = (a > 0) & (signal > 0)
    root = np.sqrt(np.maximum(0, b * b - 4 * a * c))
    low, high = (np.where(known, np.clip((-b + sign * root) / np.where(known, 2 * a, 1), 0, 1), sign > 0) for sign in (-1, 1))
    found, sure = _plug_in(runs)
    return np.where(sure, np.minimum(low, found), low), np.where(sure, np.maximum(high, found), high)


def _plug_in(runs: Cell) -> tuple[Array, NDArray[np.bool_]]:
    with np.errstate(invalid="ignore", divide="ignore"):
        hit = runs.labelled[:, 0] / (runs.labelled[:, 0] + runs.labelled[:, 2])
        correct = runs.labelled[:, 3] / (runs.labelled[:, 3] + runs.labelled[:, 1])
        sure = hit + correct > 1
        return np.clip((runs.said / runs.answers + correct - 1) / np.where(sure, hit + correct - 1, 1), 0, 1), sure


def _rates(runs: Cell, more: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    both, judged, labelled, neither = runs.labelled.T
    return _adjusted(both, both + labelled, more), _adjusted(neither, neither + judged, more)


def _adjusted(hits: Array, n: Array | int, more: float) -> tuple[Array, Array]:
    mean = (hits + more / 2) / (n + more)
    return mean, mean * (1 - mean) / (n + more)


def lee(runs: Cell) -> Ends:
    """The interval of Lee et al. (2025), section 4: Rogan and Gladen's fraction, linearised, with adjusted counts and a shift."""
    share, of_rows = _adjusted(runs.said, runs.answers, Z * Z)
    (hit, of_hits), (correct, of_correct) = _rates(runs, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.clip((share + correct - 1) / (hit + correct - 1), 0, 1)
        shift = 2 * Z * Z * (mean * of_hits - (1 - mean) * of_correct)
        error = np.sqrt(of_rows + (1 - mean) ** 2 * of_correct + mean**2 * of_hits) / np.abs(hit + correct - 1)
    known = hit + correct > 1
    low, high = (np.where(known, np.clip(mean + shift + sign * Z * error, 0, 1), sign > 0) for sign in (-1, 1))
    return low, high


def ppi_py(runs: Cell) -> Ends:
    """`ppi_mean_ci` of ppi-python 0.2.3 with its default lambda: labelled answers, and the others as the unlabelled ones."""
    n, rest = runs.labels, max(1, runs.answers - runs.labels)
    both, judged, labelled, _ = runs.labelled.T
    said, right = (both + judged) / n, (both + labelled) / n
    others = (runs.said - both - judged) / rest
    pooled = runs.said / runs.answers
    spread = pooled * (1 - pooled)
    covariance = both / n - said * right
    power = np.where(spread > 0, covariance / np.where(spread > 0, spread, 1) / (1 + n / rest), 0)
    mean = power * others + right - power * said
    of_rest = power**2 * others * (1 - others) / rest
    of_labels = (right * (1 - right) + power**2 * said * (1 - said) - 2 * power * covariance) / n
    error = Z * np.sqrt(np.maximum(0, of_rest + of_labels))
    return mean - error, mean + error


def labels_alone(runs: Cell) -> Ends:
    """Clopper and Pearson's interval of the labels."""
    hits = runs.labelled[:, 0] + runs.labelled[:, 2]
    low = special.betaincinv(np.maximum(hits, 1e-300), runs.labels - hits + 1, TAIL)
    high = special.betaincinv(hits + 1, np.maximum(runs.labels - hits, 1e-300), 1 - TAIL)
    return np.where(hits > 0, low, 0), np.where(hits < runs.labels, high, 1)


def raw(runs: Cell) -> Ends:
    """The judge's mean ± 1.96 standard errors: what inspect_ai reports; promptfoo prints the mean alone."""
    share = runs.said / runs.answers
    error = 1.96 * np.sqrt(share * (1 - share) / (runs.answers - 1))
    return share - error, share + error


# --- scores that are not 0 or 1


class Graded(NamedTuple):
    """Many simulated runs with scores between 0 and 1: labels and scores of labelled answers, and the scores of the others."""

    where: str
    truth: float
    labels: Array
    scores: Array
    others: Array


def graded(rng: np.random.Generator, times: int) -> Iterator[Graded]:
    """Marks of 0, 0.25, ... 1; the judge is off by a step or two, mostly upwards."""
    for n, answers, shape, error in itertools.product((50, 200), (200, 2000), ((2, 2), (0.8, 0.2), (9, 0.6)), (0.1, 0.4, 0.8)):
        if n == answers:
            continue
        share = stats.beta(*shape)
        marks = rng.binomial(4, np.asarray(share.rvs((times, answers), random_state=rng))) / 4
        truth = shape[0] / sum(shape)
        step = rng.choice([-1, 1, 2], (times, answers), p=[0.2, 0.6, 0.2]) / 4
        scores = np.clip(marks + np.where(rng.random((times, answers)) < error, step, 0), 0, 1)
        where = f"mean {truth:.2f}, judge off in {error:.0%}, {n} of {answers:,}"
        yield Graded(where, truth, marks[:, :n], scores[:, :n], scores[:, n:])


def regression(runs: Graded) -> Ends:
    """The shipped `by_regression`."""
    n, whole = runs.labels.shape[1], np.concatenate([runs.scores, runs.others], axis=1)
    label, score = runs.labels.mean(axis=1, keepdims=True), runs.scores.mean(axis=1, keepdims=True)
    spread = ((runs.scores - score) ** 2).sum(axis=1)
    both = ((runs.scores - score) * (runs.labels - label)).sum(axis=1)
    slope = np.where(spread > 0, both / np.where(spread > 0, spread, 1), 0)
    mean = np.clip(label[:, 0] + slope * (whole.mean(axis=1) - score[:, 0]), 0, 1)
    rest = runs.labels - label - slope[:, None] * (runs.scores - score)
    variance = n / (n - 2) * (rest**2).sum(axis=1) / n**2 + slope**2 * whole.var(axis=1, ddof=1) / whole.shape[1]
    return _bounded(mean, variance, n)


def _bounded(mean: Array, variance: Array, n: int) -> Ends:
    """The shipped `share_interval` of independent rows."""
    spread = mean * (1 - mean)
    observed = variance * (n - 1) / np.where(spread > 0, spread, 1)
    rarer = n * np.minimum(mean, 1 - mean) / np.maximum(observed, 1)
    observed = observed + UNSEEN / (UNSEEN + rarer) * np.maximum(0, 1 - observed)
    raised = observed + ALIKE / (ALIKE + rarer**2) * np.maximum(0, 1 - observed)
    effective = n / np.where(spread > 0, raised, 1)
    hits = mean * effective
    low = special.betaincinv(np.maximum(hits, 1e-300), effective - hits + 1, TAIL)
    high = special.betaincinv(hits + 1, np.maximum(effective - hits, 1e-300), 1 - TAIL)
    return np.where(hits > 0, low, 0), np.where(hits < effective, high, 1)


def graded_alone(runs: Graded) -> Ends:
    """The shipped interval of the labels alone."""
    n = runs.labels.shape[1]
    return _bounded(runs.labels.mean(axis=1), runs.labels.var(axis=1, ddof=1) / n, n)


def graded_ppi_py(runs: Graded) -> Ends:
    """`ppi_mean_ci` of ppi-python 0.2.3."""
    n, rest = runs.labels.shape[1], runs.others.shape[1]
    whole = np.concatenate([runs.scores, runs.others], axis=1)
    covariance = ((runs.labels - runs.labels.mean(axis=1, keepdims=True)) * runs.scores).mean(axis=1)
    power = covariance / whole.var(axis=1) / (1 + n / rest)
    left = runs.labels - power[:, None] * runs.scores
    mean = left.mean(axis=1) + power * runs.others.mean(axis=1)
    error = Z * np.sqrt(left.var(axis=1) / n + power**2 * runs.others.var(axis=1) / rest)
    return mean - error, mean + error


def graded_raw(runs: Graded) -> Ends:
    """The judge's mean ± 1.96 standard errors."""
    whole = np.concatenate([runs.scores, runs.others], axis=1)
    error = 1.96 * whole.std(axis=1, ddof=1) / np.sqrt(whole.shape[1])
    return whole.mean(axis=1) - error, whole.mean(axis=1) + error


# --- the table


class Tallied(NamedTuple):
    """Coverage of one formula on one cell, and the mean width of its intervals, cut to [0, 1]."""

    where: str
    covered: float
    width: float


def measure(where: str, truth: float, ends: Ends) -> Tallied:
    """Return the share of intervals that hold the truth, and their width."""
    low, high = ends
    held = (low - 1e-12 <= truth) & (truth <= high + 1e-12)
    return Tallied(where, float(held.mean()), float((np.clip(high, 0, 1) - np.clip(low, 0, 1)).mean()))


KINDS: dict[str, tuple[Callable[..., Iterator[Cell]], dict[str, Callable[[Cell], Ends]]]] = {
    "verdicts; labels drawn at random from the run": (
        lambda rng, times: cells(rng, times, "random"),
        {"ours (posterior)": posterior, "ppi_py": ppi_py, "labels alone": labels_alone, "raw mean ± 1.96 SE": raw},
    ),
    "verdicts; labels drawn by verdict": (
        lambda rng, times: cells(rng, times, "by verdict"),
        {"ours (posterior)": posterior, "raw mean ± 1.96 SE": raw},
    ),
    "verdicts; labels of another run": (
        elsewhere,
        {"ours (rates)": fieller, "Lee et al.": lee, "raw mean ± 1.96 SE": raw},
    ),
}
GRADED: dict[str, Callable[[Graded], Ends]] = {
    "ours (regression)": regression,
    "ppi_py": graded_ppi_py,
    "labels alone": graded_alone,
    "raw mean ± 1.96 SE": graded_raw,
}


def check(runs: Cell, formula: Callable[[Cell], Ends]) -> None:
    """Compare ours with the shipped function on a few draws."""
    low, high = formula(runs)
    for index in range(CHECKED):
        counts, said = runs.labelled[index].astype(int), int(runs.said[index])
        pairs = zip(counts, ((1, 1), (1, 0), (0, 1), (0, 0)), strict=True)
        labelled = [Labelled(float(score), float(label)) for count, (score, label) in pairs for _ in range(count)]
        scores = [1.0] * said + [0.0] * (runs.answers - said)
        if formula is posterior:
            shipped = by_posterior(scores, None, labelled).interval
        else:
            rates = [
                Rate(hits / n if n else 0.5, float(n))
                for hits, n in ((counts[0], counts[0] + counts[2]), (counts[3], counts[3] + counts[1]))
            ]
            shipped = by_rates(scores, None, rates[0], rates[1], runs.labels).interval
        if not np.allclose(shipped, (low[index], high[index]), atol=1e-6):
            raise AssertionError(f"{runs.where}: {shipped} is shipped, {low[index], high[index]} was simulated")


def check_graded(runs: Graded) -> None:
    """The same for scores between 0 and 1."""
    low, high = regression(runs)
    for index in range(CHECKED):
        labelled = [Labelled(*pair) for pair in zip(runs.scores[index].tolist(), runs.labels[index].tolist(), strict=True)]
        scores = [*runs.scores[index].tolist(), *runs.others[index].tolist()]
        shipped = by_regression(scores, None, labelled).interval
        if not np.allclose(shipped, (low[index], high[index]), atol=1e-6):
            raise AssertionError(f"{runs.where}: {shipped} is shipped, {low[index], high[index]} was simulated")


def simulate(times: int, rng: np.random.Generator) -> dict[str, dict[str, list[Tallied]]]:
    """Measure every formula on every cell, by kind and formula."""
    found: dict[str, dict[str, list[Tallied]]] = {}
    for kind, (draw, formulas) in KINDS.items():
        progress(kind)
        tallied: dict[str, list[Tallied]] = {name: [] for name in formulas}
        for runs in draw(rng, times):
            check(runs, next(iter(formulas.values())))
            for name, formula in formulas.items():
                tallied[name].append(measure(runs.where, runs.truth, formula(runs)))
        found[kind] = tallied
    kind = "scores of 0, 0.25, ... 1; labels drawn at random from the run"
    progress(kind)
    found[kind] = {name: [] for name in GRADED}
    for scored in graded(rng, max(100, times // 4)):
        check_graded(scored)
        for name, of_graded in GRADED.items():
            found[kind][name].append(measure(scored.where, scored.truth, of_graded(scored)))
    return found


def table(found: dict[str, dict[str, list[Tallied]]]) -> str:
    """Lay out, by kind and formula: mean and least coverage, where the least is, the share of cells below 93 %, and the width."""
    heads = ["scores and labels", "interval", "cells", "mean", "least", "where", "below 93%", "width"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for kind, formulas in found.items():
        for name, tallied in formulas.items():
            least = min(tallied, key=lambda one: one.covered)
            covered = sum(one.covered for one in tallied) / len(tallied)
            width = sum(one.width for one in tallied) / len(tallied)
            short = sum(one.covered < 0.93 for one in tallied) / len(tallied)
            shares = [f"{covered:.1%}", f"{least.covered:.1%}", least.where, f"{short:.0%}", f"{width:.3f}"]
            lines.append(f"| {' | '.join([kind, name, f'{len(tallied):,}', *shares])} |")
    return "\n".join(lines)


def good_models(rng: np.random.Generator, times: int) -> str:
    """The widths and coverage where good models are: a judge of 0.9/0.9 and 0.98/0.98, 1,000 answers."""
    names = {"ours": posterior, "ppi_py": ppi_py, "labels alone": labels_alone}
    lines = [f"| right | judge | labels | {' | '.join(f'{name}: covers | width' for name in names)} |", f"|{'---|' * 9}"]
    for runs in cells(rng, times, "random"):
        if runs.answers == 1000 and runs.truth >= 0.9 and runs.judge in ((0.9, 0.9), (0.98, 0.98)) and runs.labels <= 200:
            all_of = [measure(runs.where, runs.truth, formula(runs)) for formula in names.values()]
            told = " | ".join(f"{one.covered:.1%} | {one.width:.3f}" for one in all_of)
            lines.append(f"| {runs.truth} | {runs.judge[0]:g}/{runs.judge[1]:g} | {runs.labels} | {told} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    args = parser(__doc__).parse_args()
    times = 200 if args.quick else 2000
    rng = np.random.default_rng(20261201)
    about = (
        f"Nominal {LEVEL:.0%}; {times:,} simulated runs per cell (a quarter for marks), the same for every formula. `least` "
        "is the worst cell. Widths are means over cells, of intervals cut to [0, 1]."
    )
    text = [about, table(simulate(times, rng)), "Where good models are, labels drawn at random:", good_models(rng, times)]
    publish(args, "Judged scores", "\n\n".join(text))


if __name__ == "__main__":
    main()
