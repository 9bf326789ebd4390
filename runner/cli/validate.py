"""Run `ostinato validate`: find every mistake that can be found without sending a request."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from runner.cli.options import add_config, add_json, composed

if TYPE_CHECKING:
    import argparse

TAKES_OVERRIDES = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Check a config: its keys and types, its data, its prompts on every row, its scorers, its training rows. Nothing is sent."
    )
    add_config(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Check. Return 0 if there are no mistakes.

    Raises:
        ConfigError, DataError: the first mistake that was found.
    """
    from runner.experiment.prepared import prepare
    from runner.lm.capabilities import ending

    prepared = prepare(composed(args).config())
    config, parts = prepared.config, prepared.parts()
    data, scorers, lm, adapter, _ = parts
    for row in data:
        adapter.format(row)
    samples = len(data) * config.sampling.repeats
    facts = {"name": prepared.name, "model": lm.model, "rows": len(data), "samples": samples, "scores": list(scorers)}
    if config.finetune is not None:
        facts["training"] = prepared.training.spec.job
    remarks = [*parts.remarks(config), *filter(None, [ending(lm.model)])]
    if remarks:
        facts["remarks"] = remarks
    if lm.not_sent:
        facts["not_sent"] = lm.not_sent
    if args.json:
        print(json.dumps({"valid": True, **facts}))
    else:
        scored = ", ".join(scorers) or "nothing"
        trained = f", trained by {facts['training']} first" if "training" in facts else ""
        print(f"valid: {facts['name']}: {samples:,} samples of {len(data):,} rows for {lm.model}{trained}, scored by {scored}")
        for remark in remarks:
            print(f"remark: {remark}", file=sys.stderr)
    return 0
