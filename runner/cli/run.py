"""Run `ostinato run`: compose a config, play it, print the summary and what to try next."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli import EXIT_CODES
from runner.cli.options import add_config, add_display, add_tag, composed, shorten, tagged
from runner.secrets import redact

if TYPE_CHECKING:
    import argparse

    from runner.config.compose import Composition
    from runner.experiment.run import RunResult

TAKES_OVERRIDES = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Play an experiment and record it. Without arguments: the default experiment, on a model of this machine. "
        "For rows of your own, `ostinato init --from FILE` makes an experiment. `ostinato config ls` lists what can be chosen."
    )
    add_config(parser)
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep: KEY=a,b plays a cell per value; KEY=range(0,5)")
    parser.add_argument("--fail-fast", action="store_true", help="in a sweep: stop as soon as a cell gets no answers")
    parser.add_argument("--cfg", choices=["job"], help="print the composed config and stop")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: resolve interpolations")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be asked and what it may cost; record, start and send nothing"
    )
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="EXPRESSION",
        help="what the run has to reach, such as 'contains >= 0.8' or 'invalid <= 2%%'; may be repeated. Judged by the 95%% "
        "interval: exit code 0 if it holds, 100 if not, 3 if there are too few rows to tell (docs/statistics.md)",
    )
    add_tag(parser)
    parser.epilog = EXIT_CODES
    add_display(parser)


def main(args: argparse.Namespace) -> int:
    """Play. Return 0 complete (or a dry run), 3 incomplete or undecided, 1 failed, 100 not as expected, 130 interrupted.

    Raises:
        OstinatoError: the run could not begin or continue.
    """
    if args.expect:
        args.overrides.append(_expected(args))
    if args.multirun:
        if not args.cfg:
            return _sweep(args)
        from runner.config.sweepers import split

        args.overrides = split(args.overrides).fixed
    composition = composed(args)
    if args.cfg:
        from runner.config.compose import to_yaml

        composition.config()
        print(to_yaml(composition.plain if args.resolve else composition.raw), end="")
        return 0
    config = composition.config()
    if config.sweep.varies:
        return _sweep(args)
    if args.dry_run:
        return _forecast(composition, as_json=args.json)
    from runner.cli.display import Display
    from runner.experiment.experiment import Experiment
    from runner.experiment.prepared import prepare
    from runner.experiment.run import run_to_end
    from runner.experiment.train_first import train_first

    display = Display(args.display)
    prepared = train_first(prepare(config), display.say)
    tags = tagged(args)
    experiment = Experiment.create(prepared, composition.overrides, facts={"tags": tags} if tags else None)
    result = run_to_end(experiment, notify=display.say, watch=display.watch)
    return report(result, args, _command(args))


def _expected(args: argparse.Namespace) -> str:
    """Return the override that adds the expectations of the command line to those of the config."""
    from runner.config.compose import compose
    from runner.config.sweepers import split

    fixed = split(args.overrides).fixed if args.multirun else args.overrides
    before = compose(fixed, config_name=args.config_name, config_dir=args.config_dir).config().expect.that
    quoted = ("'{}'".format(text.replace("\\", "\\\\").replace("'", "\\'")) for text in (*before, *args.expect))
    return f"expect.that=[{','.join(quoted)}]"


def _sweep(args: argparse.Namespace) -> int:
    from runner.cli import cells as sweep

    return sweep.forecast(args) if args.dry_run else sweep.play(args)


def _forecast(composition: Composition, *, as_json: bool) -> int:
    """Print what a run would do. Return 0, whether the budget covers it or not."""
    from runner.experiment.estimate import forecast
    from runner.experiment.prepared import prepare
    from runner.experiment.train_first import foreseen

    found = forecast(foreseen(prepare(composition.config())))
    if as_json:
        print(json.dumps(found.to_dict()))
        return 0
    from runner.cli.display import print_table

    print_table(f"{found.name}: dry run", found.table())
    return 0


def _command(args: argparse.Namespace) -> str:
    """Return the command as it was given."""
    called = Path(sys.argv[0]).absolute()
    program = "ostinato" if shutil.which("ostinato") or called.name == "__main__.py" else shorten(called)
    named = [] if args.config_name == "config" else ["-cn", args.config_name]
    placed = [] if args.config_dir is None else ["-cd", args.config_dir]
    return redact(" ".join([program, "run", *map(shlex.quote, [*args.overrides, *named, *placed])]))


def report(result: RunResult, args: argparse.Namespace, command: str | None = None) -> int:
    """Print the result: one JSON object, or a table; with `command`, which was run, what to try next. Return the exit code."""
    summary = result.summary
    if args.json:
        print(json.dumps(summary.to_dict()))
    elif args.display != "none":
        from runner.cli.display import print_summary

        print_summary(summary, shorten(result.folder), command=command if summary.status != "failed" else None)
    if summary.problem:
        print(f"error: {summary.problem}", file=sys.stderr)
    if summary.errors:
        print(f"{summary.errors:,} rows failed; retry them with: ostinato retry {shorten(result.folder)}", file=sys.stderr)
    if summary.stopped_early:
        print(
            f"stopped early: the verdict is certain, and {summary.owed:,} rows were not asked; ask them with: "
            f"ostinato resume {shorten(result.folder)} expect.stop_early=false",
            file=sys.stderr,
        )
    elif summary.owed:
        print(f"{summary.owed:,} rows are still owed; resume with: ostinato resume {shorten(result.folder)}", file=sys.stderr)
    return result.exit_code
