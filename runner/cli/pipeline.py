"""Run `ostinato pipeline`: train a model, compare it with its base, and register it if it is significantly better."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from runner.cli.options import add_config, add_display, composed, shorten
from runner.types import Score
from runner.wording import numbers

if TYPE_CHECKING:
    import argparse

    from runner.config.schema import RunConfig
    from runner.pipelines.run import PipelineResult, StageOutcome

TAKES_OVERRIDES = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Train a model and compare it with its base: data, validate, baseline, train, launch, tuned, compare, register, "
        "kill. Finished stages are never repeated: after an interruption, run the command again. The exit code is 100 if the "
        "gain is too small to register the model."
    )
    add_config(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, list the stages that are owed, and begin nothing"
    )
    add_display(parser)


def main(args: argparse.Namespace) -> int:
    """Run the pipeline. Return 0 registered, 100 too small a gain, 1 failed, 3 incomplete, 130 interrupted.

    Raises:
        OstinatoError: the pipeline could not begin.
    """
    from runner.cli.display import Display
    from runner.pipelines.pipeline import Pipeline
    from runner.pipelines.run import pipeline_to_end

    composition = composed(args)
    config = composition.config()
    if args.dry_run:
        return _forecast(config, as_json=args.json)
    display = Display(args.display)
    result = pipeline_to_end(Pipeline.create(config, composition.overrides), notify=display.say, watch=display.watch)
    if args.json:
        print(json.dumps(result.to_dict()))
    elif args.display != "none":
        _print(result)
    if result.problem:
        print(f"error: {result.problem}", file=sys.stderr)
    if result.manifest.status in ("interrupted", "incomplete"):
        print("to resume, run the same command again; finished stages are skipped", file=sys.stderr)
    return result.exit_code


def _print(result: PipelineResult) -> None:
    from runner.cli.display import print_table

    facts = [(stage.name, _went(stage)) for stage in result.stages]
    for name in ("baseline", "tuned"):
        facts += [(f"{name} {score}", _score(told)) for score, told in result.of(name).get("scores", {}).items()]
    if compared := result.of("compare"):
        facts.append((f"gain {compared['metric']}", _gain(compared)))
    if registered := result.of("register"):
        facts.append(("alias", _alias(registered)))
    print_table(f"{result.manifest.name}: {result.manifest.status}", [*facts, ("record", shorten(result.folder))])


def _went(stage: StageOutcome) -> str:
    return stage.status if stage.status == "skipped" else f"{stage.status}  {numbers.seconds(stage.wall_s)}"


def _score(told: dict[str, Any]) -> str:
    return numbers.score_in_full(Score(told["mean"], told["stderr"], told["n"], told.get("interval")))


def _gain(compared: dict[str, Any]) -> str:
    found = compared["difference"]
    interval = f", {compared['level']:.0%} interval {numbers.bounds(found['ci'], sign='+')}" if found["ci"] else ""
    cases = [numbers.change(case["mean"]) for case in compared.get("bounds") or () if case["mean"] is not None]
    whole = f"; {cases[0]} to {cases[-1]} with what was left out" if cases else ""
    verdict = "undecided" if compared.get("undecided") else compared["verdict"]
    return f"{numbers.change(found['mean'])}{interval}, {numbers.p_equals(found['p'])} (n={found['n']:,}): {verdict}{whole}"


def _alias(registered: dict[str, Any]) -> str:
    if registered["moved"]:
        name = registered["alias"]
        return f"{name}@{registered['version']}: ask it with model={name}@latest"
    return f"{registered['alias']} was not moved: {registered['reason']}"


def _forecast(config: RunConfig, *, as_json: bool) -> int:
    """Print the stages that are owed. Return 0."""
    from runner.cli.display import print_table
    from runner.pipelines.pipeline import outlook

    found = outlook(config)
    if as_json:
        print(json.dumps(found))
    else:
        steps = found["estimate"]["steps"]
        training = f"{found['job']}, {f'{steps:,} steps' if steps else 'as many steps as the provider chooses'}"
        print_table(f"{found['name']}: dry run", [*found["stages"].items(), ("training", training)])
    return 0
