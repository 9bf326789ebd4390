"""Run `ostinato ft run`: check the data, print an estimate, begin the job and follow it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from runner.cli.finetune.follow import follow
from runner.cli.options import add_config, add_json, composed
from runner.errors import ConfigError
from runner.models import aliases
from runner.wording.numbers import about_seconds, dollars

if TYPE_CHECKING:
    import argparse

    from runner.experiment.training import PreparedTraining
    from runner.finetune.jobs.estimate import Estimate

_SHOWN = 10
"""Remarks on the data that are printed one by one."""


def configure(parser: argparse.ArgumentParser, _action: str) -> None:
    """Declare the action's arguments."""
    parser.description = (
        "Train the model that the group `finetune` of a config describes. The same base, data and settings are one job: "
        "running the command again follows the job, resumes it from its last checkpoint, or prints its model at once."
    )
    add_config(parser)
    parser.add_argument(
        "--force", action="store_true", help="start another attempt from scratch, whatever the result of the last one"
    )
    parser.add_argument("--dry-run", action="store_true", help="check the data and print an estimate, without starting anything")
    parser.add_argument("--detach", action="store_true", help="start the job without waiting for its end")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Train. Return 0 if there is a trained model (with `--detach`: if the job began), 1 if it failed, 130 after Ctrl-C.

    Raises:
        OstinatoError: the job could not begin.
    """
    from runner.experiment.prepared import prepare

    args.overrides = _with_group(args.overrides)
    prepared = prepare(composed(args).config()).training
    facts = _facts(prepared)
    _announce(prepared)
    if args.dry_run:
        print(json.dumps(facts) if args.json else f"{prepared.spec.job}: nothing was begun")
        return 0
    if args.force:
        _refuse_named(prepared.spec.job)
    return follow(prepared.open(), as_json=args.json, begin=True, force=args.force, wait=not args.detach, more=facts)


def _refuse_named(job: str) -> None:
    """Raise ConfigError if an alias names the model of the job: the model behind ``tickets@3`` never changes."""
    for alias in aliases.listed():
        for version in alias.versions:
            if version.model.get("name") == f"ft-{job}":
                name = f"{alias.name}@{version.version}"
                raise ConfigError(f"--force would replace the model that {name} names; train another: finetune.seed=...")


def _with_group(overrides: list[str]) -> list[str]:
    """Return the overrides. ``finetune.lr=1e-3`` without an option means the default option of the group."""
    names = [override.lstrip("+~").partition("=")[0] for override in overrides]
    chosen = "finetune" in names or "experiment" in names
    return overrides if chosen or not any(name.startswith("finetune.") for name in names) else ["finetune=default", *overrides]


def _facts(prepared: PreparedTraining) -> dict[str, Any]:
    spec = prepared.spec
    return {
        "job": spec.job,
        "provider": spec.provider,
        "base": spec.base.name,
        "data": prepared.source,
        "estimate": msgspec.to_builtins(prepared.estimate),
        "remarks": [str(remark) for remark in prepared.remarks],
    }


def _announce(prepared: PreparedTraining) -> None:
    """Print on stderr what will be trained, and the estimate."""
    spec = prepared.spec
    lines = [f"{spec.job}: {spec.base.name} by {spec.provider}, on {prepared.source}", f"  {_work(prepared.estimate)}"]
    lines += [f"  notice: {notice}" for notice in prepared.notices]
    lines += [f"  remark: {remark}" for remark in prepared.remarks[:_SHOWN]]
    if len(prepared.remarks) > _SHOWN:
        lines.append(f"  ... and {len(prepared.remarks) - _SHOWN:,} more remarks")
    print("\n".join(lines), file=sys.stderr, flush=True)


def _work(work: Estimate) -> str:
    rows = f"{work.rows:,} rows" + (f" (and {work.valid_rows:,} to validate)" if work.valid_rows else "")
    steps = "as many steps as the provider chooses" if work.steps is None else f"{work.steps:,} steps"
    tokens = f"{work.tokens_an_epoch:,} tokens per epoch" if work.tokens is None else f"{work.tokens:,} tokens"
    time = "time unknown" if work.seconds is None else f"about {about_seconds(work.seconds)} ({work.seconds_by})"
    cost = "cost unknown" if work.cost_usd is None else "free" if not work.cost_usd else f"about {dollars(work.cost_usd)}"
    return f"{rows}, {steps}, {tokens} by {work.counted_by}; {time}; {cost}"
