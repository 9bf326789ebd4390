"""Run `ostinato compare`: print the rows that flipped between A and B, the differences with their errors, and the verdicts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from runner.analysis.judges import again
from runner.cli.display import aligned
from runner.cli.options import add_json, add_runs_dir, count
from runner.errors import ConfigError
from runner.wording import numbers
from runner.wording.printable import printable
from runner.wording.statuses import ADVICE, counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from runner.analysis.changes import ScoreChange
    from runner.analysis.compare import Comparison, Measure
    from runner.analysis.corrected_pairs import CorrectedChange
    from runner.analysis.load import Run
    from runner.analysis.pairs import Flip
    from runner.stats.bradley_terry import Table

REGRESSED, UNDECIDED = 100, 3

_SHOWN = 300
"""Characters of a prompt or an answer, on a terminal."""

_MEASURES = {
    "prompt_tokens": ("prompt tokens per sample", "{:,.1f}"),
    "completion_tokens": ("completion tokens per sample", "{:,.1f}"),
    "price_usd": ("price per sample, $", "{:,.6f}"),
    "latency_p50_s": ("latency p50, s", "{:,.3f}"),
    "latency_p95_s": ("latency p95, s", "{:,.3f}"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Compare runs with the first one, row by row: mean difference with its interval, a test, "
        "and a verdict, adjusted (Holm) for all scores and runs. A sweep stands for its cells. Rows without a score in either "
        "run are left out; if they could turn a verdict, it is undecided, and the exit code is 3."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="A, the reference, then B, C, ...: folders, names, stamps, sweeps")
    parser.add_argument("--score", action="append", metavar="NAME", help="compare this score only; may be repeated")
    parser.add_argument(
        "--cluster",
        metavar="COLUMN",
        help="a column of the data; rows with the same value there are not independent (default: data.cluster of the runs)",
    )
    parser.add_argument("--level", type=float, default=0.95, metavar="P", help="the confidence level (default: 0.95)")
    parser.add_argument(
        "--lower-is-better", action="append", default=[], metavar="NAME", help="a score of which lower values are better"
    )
    parser.add_argument("--rows", type=count, default=5, metavar="N", help="show N rows that flipped (default: 5)")
    parser.add_argument(
        "--fail-on-regression",
        action="store_true",
        help="exit 100 when a run is significantly worse than A in a score, 3 when that is undecided",
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown, for a comment on a pull request")
    parser.add_argument(
        "--any-judge",
        action="store_true",
        help="give a verdict on scores of different judges (models, rubrics, labels) as well",
    )
    add_json(parser)
    add_runs_dir(parser)


def main(args: argparse.Namespace) -> int:
    """Compare. Return 0, or 3 if a verdict is undecided.

    With ``--fail-on-regression``: 100 if a run is worse, 3 also if nothing could be compared.

    Raises:
        ConfigError, RecordError, DataError: the runs cannot be compared.
    """
    from runner.analysis.compare import compare_all
    from runner.analysis.tournament import strengths
    from runner.stats.stats import RESAMPLES

    runs = _runs(args)
    clusters = _clusters(runs, args.cluster) if args.cluster else None
    found = compare_all(
        runs,
        scores=args.score,
        level=args.level,
        clusters=clusters,
        lower_is_better=args.lower_is_better,
        rows=args.rows,
        any_judge=args.any_judge,
        resamples=RESAMPLES if args.json else 0,  # text does not show bootstrap intervals
    )
    tables = strengths(runs, args.runs_dir, args.level)
    if args.json:
        import msgspec

        whole: dict[str, object] = {"reference": str(runs[0].folder), "comparisons": [one.to_dict() for one in found]}
        whole |= {"strengths": tables} if tables else {}
        print(msgspec.json.encode(whole).decode())  # NaN and infinity become null
    elif args.markdown:
        from runner.analysis.comment import comment

        print(comment(found, [run.summary.expectations if run.summary else [] for run in runs[1:]]), end="")
    else:
        column = args.cluster or (runs[0].config.get("data") or {}).get("cluster")
        parts = [_told(comparison, column) for comparison in found]
        parts += [_strengths(score, table, args.level) for score, table in tables.items()]
        print("\n\n".join("\n".join(map(printable, part)) for part in parts))
    return _exit_code(found, gate=args.fail_on_regression)


def _exit_code(found: Iterable[Comparison], *, gate: bool) -> int:
    """Return the exit code, and say on stderr why it is not 0."""
    if gate and (worse := [f"{comparison.b} ({', '.join(comparison.worse)})" for comparison in found if comparison.worse]):
        print(f"worse than the reference: {', '.join(worse)}", file=sys.stderr)
        return REGRESSED
    if turned := [f"{comparison.b} ({', '.join(comparison.turned)})" for comparison in found if comparison.turned]:
        print(f"undecided, because what was left out can turn the verdict: {', '.join(turned)}; {ADVICE}", file=sys.stderr)
        return UNDECIDED
    if others := [f"{comparison.b} ({', '.join(comparison.judges)})" for comparison in found if comparison.judges]:
        print(f"undecided, because different judges gave the scores: {', '.join(others)}", file=sys.stderr)
        return UNDECIDED
    if gate and (undecided := [comparison.b for comparison in found if comparison.undecided]):
        print(f"nothing to compare, so a regression cannot be ruled out: {', '.join(undecided)}", file=sys.stderr)
        return UNDECIDED
    return 0


def _runs(args: argparse.Namespace) -> list[Run]:
    """Return the named runs, each once, a sweep's cells in its place. Raise ConfigError if there are fewer than two."""
    from runner.analysis.load import Sweep, load

    runs: dict[str, Run] = {}
    for name in args.runs:
        found = load(name, runs_dir=args.runs_dir)
        for run in [cell.run for cell in found.cells if cell.run] if isinstance(found, Sweep) else [found]:
            runs.setdefault(str(run.folder), run)
    if len(runs) < 2:  # noqa: PLR2004
        raise ConfigError(f"there is nothing to compare {', '.join(args.runs)} with: name two different runs, or a sweep")
    return list(runs.values())


def _clusters(runs: Iterable[Run], column: str) -> Mapping[str, Hashable]:
    """Return the column from the data of every run; rows that only one of them has are harmless."""
    from runner.experiment.columns import column_of

    found: dict[str, Hashable] = {}
    for run in {run.manifest.get("data", {}).get("fingerprint"): run for run in runs}.values():
        for row, value in column_of(run.folder, column).items():
            if found.setdefault(row, value) != value:
                raise ConfigError(
                    f"--cluster {column}: row {row!r} is {found[row]!r} in one run's data and {value!r} in another's"
                )
    return found


# --- text for people: the flips, the numbers, and last the verdict


def _told(found: Comparison, cluster: str | None) -> Iterator[str]:
    yield f"A  {found.a}"
    yield f"B  {found.b}"
    if found.flips:
        yield from _flips(found)
    yield ""
    yield from aligned(
        [
            ("score", "A", "B", "B - A", f"{found.level:.0%} interval", "p", "verdict"),
            *map(_score_line, found.scores.items()),
        ]
    )
    yield ""
    known = [item for item in found.measures.items() if item[1].a is not None or item[1].b is not None]
    yield from aligned([("", "A", "B", "B - A"), *(_measure_line(name, measure) for name, measure in known)])
    for title, changes in (("config", found.config_changes), ("data", found.data_changes)):
        if changes:
            yield f"\n{title}, A -> B"
            yield from (f"  {line}" for change in changes for line in change.splitlines())
    yield ""
    yield from _notes(found)
    yield from _verdicts(found, f" by {cluster}" if cluster else "")


def _flips(found: Comparison) -> Iterator[str]:
    change = found.scores.get(found.primary or "")
    counts = f"{change.lost:,} down, {change.gained:,} up in {found.primary}; " if change else ""
    yield f"\n{counts}{found.changed:,} of {found.answered:,} answers differ; {len(found.flips)} shown"
    for flip in found.flips:
        yield from _flip(flip)


def _flip(flip: Flip) -> Iterator[str]:
    repeat = f" (repeat {flip.repeat})" if flip.repeat else ""
    scores = "" if flip.score_a is None or flip.score_b is None else f": {flip.score_a:g} -> {flip.score_b:g}"
    yield f"\n  {flip.id}{repeat}{scores}"
    yield f"    prompt    {_line(flip.prompt)}"
    if flip.prompt_b is not None:
        yield f"    prompt B  {_line(flip.prompt_b)}"
    if flip.target is not None:
        yield f"    target    {_line(str(flip.target))}"
    yield f"    A         {_line(flip.output_a)}"
    yield f"    B         {_line(flip.output_b)}"


def _line(text: str) -> str:
    from runner.analysis.pairs import shortened

    return shortened(" ".join(text.split()), _SHOWN)


def _score_line(item: tuple[str, ScoreChange]) -> tuple[str, ...]:
    name, change = item
    found = change.difference
    if found.mean is None or found.p is None:
        return (name, "-", "-", "-", "-", "-", "nothing to compare")
    means = (numbers.mean(change.mean_a), numbers.mean(change.mean_b), numbers.change(found.mean))
    return (
        name,
        *means,
        "-" if found.ci is None else numbers.bounds(found.ci, sign="+"),
        f"{numbers.p_value(found.p)} ({found.test})",
        str(change.verdict),
    )


def _measure_line(name: str, measure: Measure) -> tuple[str, ...]:
    label, form = _MEASURES[name]
    told = ["unknown" if value is None else form.format(value) for value in (measure.a, measure.b, measure.difference)]
    sign = "+" if measure.difference is not None and measure.difference > 0 else ""
    return (label, *told[:2], sign + told[2] if measure.difference is not None else "-")


def _notes(found: Comparison) -> Iterator[str]:
    """Yield notes on samples and scores that are not in the numbers above, and on those that are not independent."""
    for name, change in found.scores.items():
        if change.left_out_a or change.left_out_b:
            sides = zip("AB", (change.left_out_a, change.left_out_b), strict=True)
            yield f"not in {name}: " + ", ".join(f"{counted(counts) or 'none'} in {side}" for side, counts in sides)
        if change.bounds is not None:
            cases = list(zip(("worst", "best"), change.bounds.by_case(change.lower_is_better), strict=True))
            told = [f"{numbers.change(found.mean or 0.0)} ({case} case)" for case, found in cases]
            number = change.bounds.samples
            yield f"  B - A in {name} is {' to '.join(told)}, with 0 or 1 for {number:,} samples that one side lacks"
    for name, corrected in found.corrected.items():
        yield _corrected(name, corrected, found.scores.get(name))
    for number, run, ids in ((found.only_a, "A", found.only_a_ids), (found.only_b, "B", found.only_b_ids)):
        if number:
            yield f"only in {run}: {number:,} samples, of rows {', '.join(ids)}{', ...' if number > len(ids) else ''}"
    if found.missing:
        yield f"scores that only one of them has: {', '.join(found.missing)}"
    if found.same:
        yield f"not independent: {found.same:,} samples of B answer the same requests as samples of A"


def _corrected(name: str, found: CorrectedChange, raw: ScoreChange | None) -> str:
    how = f"{found.labels:,} rows labelled in both" if found.paired else f"{found.labels:,} labels, taken for independent"
    told = f"{name}, corrected by labels: B - A {numbers.change(found.difference, found.interval)} ({how}); "
    told += f"by themselves A {numbers.mean(found.mean_a)}, B {numbers.mean(found.mean_b)}"
    if raw is None or raw.verdict not in ("better", "worse"):
        return told
    holds = found.interval[0] > 0 or found.interval[1] < 0
    same = found.difference * (raw.difference.mean or 0.0) > 0
    return told if holds and same else f"{told}; the labels do not confirm the verdict"


def _strengths(score: str, found: Table, level: float) -> Iterator[str]:
    yield f"strengths by {score} (Bradley and Terry): log odds against an average run"
    for group in found.groups:
        rows = [
            (
                one.player,
                numbers.change(one.log_odds),
                "-" if one.interval is None else numbers.bounds(one.interval, sign="+"),
                f"{one.points:g} of {one.games:,}",
            )
            for one in group
        ]
        yield from aligned([("run", "strength", f"{level:.0%} interval", "points"), *rows])
    yield from found.remarks


def _verdicts(found: Comparison, clustered: str) -> Iterator[str]:
    for name, told in found.judges.items():
        yield f"{name}: no verdict: A and B were judged by different judges:"
        yield from (f"  {line}" for line in told)
        yield f"  judge both by B's: {again(found.a, found.b, told)}; or compare as they are: --any-judge"
    if not found.scores and not found.judges:
        yield "no verdict: A and B have no score in common"
    for name, change in found.scores.items():
        difference = change.difference
        if change.verdict is None or change.p_adjusted is None:
            yield f"{name}: no verdict: no sample has it in both"
            continue
        units = f"{difference.n:,} rows" + (
            f" in {difference.units:,} clusters{clustered}" if difference.units != difference.n else ""
        )
        units += f", {change.samples:,} samples" if change.samples != difference.n else ""
        adjusted = "" if change.p_adjusted == difference.p else ", adjusted by Holm"
        if change.verdict == "undecided":
            yield f"{name}: undecided: what was left out can turn the verdict (on n={units})"
            continue
        than = "with A" if change.verdict == "tied" else "than A"
        yield f"B is {change.verdict} {than} in {name} (n={units}; {numbers.p_equals(change.p_adjusted)}{adjusted})"
