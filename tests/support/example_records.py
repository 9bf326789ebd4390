"""Records to look at: a sweep of 2 models × 4 temperatures, made as a sweep leaves it, and a run of many long answers."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from runner.records import RunFolder, Summary
from runner.scoring.summary import summarise_by_row
from runner.types import RowError, Sample, Score, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODELS = {"smollm2": ("local/smollm2", 0.55, 0.08, None), "openai/gpt-4o-mini": ("openai/gpt-4o-mini", 0.82, 0.6, 2.1e-5)}
"""What the sweep chose: the model as it is asked, about how often it is right, its latency (s), its price a sample (USD)."""

FAILURES = (("timeout", "no answer in 120 s"), ("server", "HTTP 503"))
TEMPERATURES = (0.0, 0.3, 0.7, 1.2)
WORDS = ("primes have no divisors", "but themselves and one", "while other numbers do", "as we may check", "step by step")


def record(parent: Path, name: str, samples: Sequence[Sample], *, config: dict[str, Any] | None = None, **more: Any) -> RunFolder:
    """A run folder with these samples and a summary of them; `more` is of the summary."""
    ids = list(dict.fromkeys(sample.id for sample in samples))
    manifest = {"name": name, "status": "complete", "started_at": "2026-11-24T08:00:00+00:00", "config": config or {"name": name}}
    manifest["data"] = {"ids": ids, "rows": len(ids)}
    texts = {"config": "name: x\n", "overrides": "- model=fake\n"}
    folder = RunFolder.create(parent, name, "0123456789ab", **texts, manifest=manifest)
    folder.append(samples)
    folder.close()
    codes = [sample.error.code for sample in samples if sample.error]
    facts: dict[str, Any] = {"run": str(folder.path), "name": name, "model": "fake/fake", "rows": len(samples), "wall_s": 12.5}
    facts |= {"status": "incomplete" if codes else "complete", "ok": len(samples) - len(codes), "errors": len(codes)}
    facts |= {"errors_by_code": {code: codes.count(code) for code in codes}, "requests": len(samples), "scores": _means(samples)}
    facts["usage"] = sum((sample.usage or Usage() for sample in samples), Usage())
    folder.write_summary(Summary(**{**facts, **more}))
    return folder


def _means(samples: Sequence[Sample]) -> dict[str, Score]:
    names = sorted({name for sample in samples for name in sample.scores})
    return {
        name: summarise_by_row((sample.id, sample.scores[name]) for sample in samples if name in sample.scores) for name in names
    }


def answers(count: int, *, seed: int, right: float, latency: float, price: float | None, fails: float = 0.03) -> list[Sample]:
    """Answers of a model that is right this often."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        asked = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": f"Is {number} prime?"}]
        sample = Sample(id=f"r{number}", messages=asked, target="yes", usage=Usage(24, 3, 27), cost_usd=price, attempts=1)
        sample.cache, sample.latency_s = "miss", latency * chance.lognormvariate(0, 0.4)
        sample.model_requested, sample.model_served, sample.finish_reason = "m", "m-1", "stop"
        if chance.random() < fails:
            sample.status, sample.error = "error", RowError(*chance.choice(FAILURES))
        else:
            good = chance.random() < right
            sample.output = "yes" if good else chance.choice(["no", "perhaps", "I cannot say"])
            sample.scores = {"exact": float(good), "f1": 1.0 if good else round(chance.random() * 0.8, 2)}
        rows.append(sample)
    return rows


def sweep(parent: Path, *, rows: int = 60) -> Path:
    """A sweep folder of 2 models × 4 temperatures; one cell has failed, one is still to come."""
    folder = parent / "primes" / "sweep-20261124-080000-0a1b2c"
    cells: dict[str, Any] = {}
    for number, (model, temperature) in enumerate((model, one) for model in MODELS for one in TEMPERATURES):
        values = {"model": model, "sampling.temperature": temperature}
        cell: dict[str, Any] = {"values": values, "run": None, "status": "pending", "problem": None}
        name, right, latency, price = MODELS[model]
        if number == 3:
            cell |= {"status": "failed", "problem": "the server did not start within 120 s"}
        elif number != 7:
            samples = answers(rows, seed=number, right=right - 0.2 * temperature**2, latency=latency, price=price)
            cost = None if price is None else price * rows
            config = {
                "name": "primes",
                "model": {"kind": "x", "name": name},
                "sampling": {"temperature": temperature, "max_tokens": 20},
            }
            made = record(folder, "cells", samples, config=config, model=name, cost_usd=cost)
            cell |= {"status": "complete", "run": str(made.path.relative_to(folder))}
        cells[f"{number:012x}"] = cell
    manifest = {
        "format": 1, "kind": "sweep", "name": "primes", "status": "incomplete", "keys": ["model", "sampling.temperature"],
        "primary": "exact", "started_at": "2026-11-24T08:00:00+00:00", "ended_at": None, "cells": cells,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def long_answers(parent: Path, count: int = 10_000, words: int = 35) -> Path:
    """A run of many long answers."""
    chance = random.Random(1)
    rows = answers(count, seed=2, right=0.7, latency=0.5, price=1e-4)
    for sample in rows:
        if sample.output is not None:
            sample.output += " " + " ".join(chance.choices(WORDS, k=words))
    return record(parent, "long", rows).path
