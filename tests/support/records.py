"""Records of runs and sweeps in the current folder: played on the fake model, or written as the command leaves them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import runner
from runner.records import RunFolder

OFFLINE = ["model=fake", "execution.orchestrator=none"]


def play(*overrides):
    return runner.run(overrides=[*OFFLINE, *overrides]).folder


def record(folder, samples, name="made", **manifest):
    made = RunFolder.create(
        Path(folder), name, "abcdef", config="{}\n", overrides="[]\n", manifest={"status": "complete", **manifest}
    )
    made.append(samples)
    made.close()
    return made.path


def sweep(cells, **more):
    """A sweep's folder as the command makes it: `cells` are (values, run folder or None)."""
    folder = Path("runs/capitals/sweep-20261124-101112-abcdef").absolute()
    (folder / "cells").mkdir(parents=True)
    listed = {}
    for index, (values, run) in enumerate(cells):
        if run is not None:
            run.rename(folder / "cells" / run.name)
        listed[f"{index:012x}"] = {
            "values": values,
            "run": f"cells/{run.name}" if run is not None else None,
            "status": "complete" if run is not None else "failed",
            "problem": None if run is not None else "no such model",
        }
    manifest = {"format": 1, "kind": "sweep", "name": "capitals", "status": "incomplete", "primary": "contains", "cells": listed}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "keys": ["sampling.temperature"], **more}))
    return folder


def format_1():
    """A run of nine sums as the last version before format 2 has left it; its answers are in notations that were misread."""
    here = Path(__file__).parent / "format_1"
    folder = Path("runs/sums/20261124-101112-15ff92").absolute()
    shutil.copytree(here, folder, ignore=shutil.ignore_patterns("sums.jsonl"))
    shutil.copy(here / "sums.jsonl", "sums.jsonl")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, "cwd": str(Path.cwd())}))
    return folder
