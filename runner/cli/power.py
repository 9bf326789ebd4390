"""Run `ostinato power`: say how many rows or repeats a comparison needs to find a difference."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runner.cli.options import add_json, add_runs_dir
from runner.wording.numbers import count

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from runner.analysis.power import Plan


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Say how many rows, or repeats of each row, a paired comparison needs to find a difference, by the noise of a run. "
        "With a second run over the same rows, the correlation of the two is measured; with one it is assumed to be 0, the worst "
        "case. The test is that of `ostinato compare`: two-sided, paired by row."
    )
    parser.add_argument("run", metavar="RUN", help="a run at hand: a folder, a name, a stamp, or latest")
    parser.add_argument("other", nargs="?", metavar="RUN_B", help="a second run over the same rows")
    parser.add_argument("-d", "--difference", type=float, required=True, metavar="D", help="the difference to find, such as 0.05")
    parser.add_argument("--score", metavar="NAME", help="the score that is compared (default: the primary one)")
    parser.add_argument("--alpha", type=float, default=0.05, metavar="P", help="level of the test (default: 0.05)")
    parser.add_argument("--power", type=float, default=0.8, metavar="P", help="chance to find the difference (default: 0.8)")
    parser.add_argument(
        "--correlation", type=float, default=0.0, metavar="R", help="of the rows' scores in both runs, with one run (default: 0)"
    )
    add_json(parser)
    add_runs_dir(parser)


def main(args: argparse.Namespace) -> int:
    """Say it. Return 0.

    Raises:
        ConfigError, RecordError: a number is out of its range, or the runs have nothing to plan with.
    """
    from runner.analysis.load import load
    from runner.analysis.power import plan

    runs = [load(name, runs_dir=args.runs_dir) for name in (args.run, args.other) if name is not None]
    found = plan(
        *runs,
        difference=args.difference,
        score=args.score,
        correlation=args.correlation,
        alpha=args.alpha,
        power=args.power,
    )
    if args.json:
        import msgspec

        print(json.dumps({"runs": [str(getattr(run, "folder", "")) for run in runs], **msgspec.to_builtins(found)}))
    else:
        print("\n".join(_told(found)))
    return 0


def _told(found: Plan) -> Iterator[str]:
    """Yield the plan in sentences."""
    each = "" if found.repeats == 1 else f", {found.repeats} answers each"
    if found.measured:
        pairs = "in these two runs" if found.correlation is None else f"correlated by {found.correlation:.2f} in these two runs"
    else:
        pairs = f"assumed to be correlated by {found.correlation:.2f}; a second run would measure it"
    variance = found.variance_rows + found.variance_repeats / found.repeats
    yield f"{found.score}: {count(found.rows, 'row')}{each}; a row's difference has the variance {variance:.3f} ({pairs})."
    if found.clusters != 1:
        yield f"Clusters of rows multiply the variance by {found.clusters:.2f}, which is in these numbers."
    yield (
        f"To find a difference of {found.difference:g} with a chance of {found.power:.0%} (two-sided at {found.alpha:g}), "
        f"a comparison needs {count(found.rows_needed, 'row')}{each}."
    )
    if found.repeats_needed is not None:
        yield f"With {count(found.rows, 'row')}, it needs {count(found.repeats_needed, 'answer')} to each."
    elif found.variance_repeats:
        yield f"With {count(found.rows, 'row')}, no number of repeats is enough: the rows themselves differ too much."
    else:
        yield "How far repeats would help is unknown: these runs have one answer per row (sampling.repeats)."
    if found.difference_found is not None:
        yield f"With {count(found.rows, 'row')}{each}, it finds a difference of {found.difference_found:.3f}."
