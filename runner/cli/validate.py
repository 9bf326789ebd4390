"""Run `ostinato validate`: find every mistake that can be found without sending a request."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from runner.cli.options import add_config, add_json, composed
from runner.wording.numbers import count

if TYPE_CHECKING:
    import argparse

    from runner.config.schema import RunConfig
    from runner.experiment.parts import Parts

TAKES_OVERRIDES = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Check a config: its keys and types, its data, its prompts and targets on every row, its scorers, its training rows. "
        "Nothing is sent."
    )
    add_config(parser)
    parser.add_argument("-m", "--multirun", action="store_true", help="check every cell of a sweep: KEY=a,b")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Check. Return 0 if there are no mistakes.

    Raises:
        ConfigError, DataError: the first mistake that was found.
    """
    if args.multirun:
        return _sweep(args)
    from runner.experiment import targets
    from runner.experiment.prepared import prepare

    prepared = prepare(composed(args).config())
    config = prepared.config
    if config.sweep.varies:
        return _sweep(args)
    parts = prepared.parts()
    data, scorers, lm = parts.dataset, parts.scorers, parts.lm
    targets.refuse(data, scorers)
    samples = len(data) * config.sampling.repeats
    facts = {"name": prepared.name, "model": lm.model, "rows": len(data), "samples": samples, "scores": list(scorers)}
    if config.finetune is not None:
        facts["training"] = prepared.training.spec.job
    said = _said(parts, config)
    if args.json:
        print(json.dumps({"valid": True, **facts, **said}))
        return 0
    scored = ", ".join(scorers) or "nothing"
    trained = f", trained by {facts['training']} first" if "training" in facts else ""
    print(f"valid: {facts['name']}: {samples:,} samples of {len(data):,} rows for {lm.model}{trained}, scored by {scored}")
    _print_remarks(said)
    return 0


def _sweep(args: argparse.Namespace) -> int:
    """Check every cell of a sweep; of a search, the cell in which nothing varies. Return 0."""
    from runner.experiment import targets
    from runner.sweeps.plan import Plan

    plan = Plan(args.overrides, config_name=args.config_name, config_dir=args.config_dir)
    if not plan.is_grid:
        plan.take([()])
    cells = []
    checked: set[tuple[str, ...]] = set()
    for key, prepared in plan.prepared.items():
        parts = prepared.parts()
        config = prepared.config
        compared = parts.dataset.fingerprint, repr(config.scoring)
        if compared not in checked:
            targets.refuse(parts.dataset, parts.scorers)
            checked.add(compared)
        cells.append({"cell": key, "values": plan.cells[key].values, "model": parts.lm.model, **_said(parts, prepared.config)})
    if args.json:
        print(json.dumps({"valid": True, "name": plan.name, "keys": plan.keys, "cells": cells}))
        return 0
    print(f"valid: {plan.name}: {count(len(cells), 'cell')} over {', '.join(plan.keys)}")
    _print_remarks(*cells)
    return 0


def _said(parts: Parts, config: RunConfig) -> dict[str, Any]:
    """Return what is worth knowing of a valid config, where there is something: ``remarks``, and parameters ``not_sent``."""
    from runner.lm.capabilities import ending

    remarks = [*parts.remarks(config), *filter(None, [ending(parts.lm.model)])]
    return {name: value for name, value in (("remarks", remarks), ("not_sent", parts.lm.not_sent)) if value}


def _print_remarks(*said: dict[str, Any]) -> None:
    """Print each remark once."""
    for remark in dict.fromkeys(remark for one in said for remark in one.get("remarks", ())):
        print(f"remark: {remark}", file=sys.stderr)
