"""A row costs so many statements, encodings, wake-ups and bytes, cached or not: counts, which no busy machine changes.

Each cost is the difference between a run of twice as many rows and one of so many, so that what a run costs once is not in it.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest

import runner

ROWS = 512
LOOKED_UP = 256
"""Rows that are looked up together."""
COSTS = ("statements", "encodings", "wake-ups", "requests", "bytes")


class Counted:
    """Count what the code in a `with` block does, in all its threads."""

    def __init__(self):
        self.counts = Counter()

    def __enter__(self):
        threading.setprofile(self._seen)
        sys.setprofile(self._seen)
        return self.counts

    def __exit__(self, *_):
        sys.setprofile(None)
        threading.setprofile(None)

    def _seen(self, frame, event, function):
        if event == "call" and frame.f_code.co_name == "_run_once":
            self.counts["wake-ups"] += 1
        elif event == "c_call":
            owner = getattr(function, "__self__", None)
            if isinstance(owner, msgspec.json.Encoder):
                self.counts["encodings"] += 1
            elif isinstance(owner, sqlite3.Connection | sqlite3.Cursor) and function.__name__.startswith("execute"):
                self.counts["statements"] += 1


def costs(rows, name):
    """Play a run. Return its counts, with the bytes of its record."""
    data = Path(f"{rows}.jsonl")
    data.write_text(
        "".join(json.dumps({"id": f"{number:04}", "question": f"Number {number:04}?"}) + "\n" for number in range(rows))
    )
    overrides = [
        "model=fake",
        "model.reply=yes",
        "data=jsonl",
        f"data.path={data}",
        "data.id=id",
        "prompt=default",
        "scoring=none",
    ]
    overrides += ["execution.orchestrator=none", "limits.max_concurrency=16", f"cache.dir=cache-{rows}", f"name={name}-{rows}"]
    with Counted() as counts:
        found = runner.run(overrides=overrides)
    assert (found.summary.rows, found.summary.errors) == (rows, 0)
    counts["requests"] = found.summary.requests
    counts["bytes"] = (found.folder / "samples.jsonl").stat().st_size
    return counts


@pytest.fixture(scope="module")
def a_row(tmp_path_factory):
    """The costs of a row, uncached and cached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("costs"))
        patch.setenv("OSTINATO_HOME", "home")
        runs = {(kind, rows): costs(rows, kind) for kind in ("new", "cached") for rows in (ROWS, 2 * ROWS)}
    return {
        kind: {what: (runs[kind, 2 * ROWS][what] - runs[kind, ROWS][what]) / ROWS for what in COSTS} for kind in ("new", "cached")
    }


def test_a_cached_row_costs_a_share_of_one_statement_and_no_wake_up(a_row):
    assert a_row["cached"] == {
        "statements": 1 / LOOKED_UP,
        "encodings": 3 + 1 / LOOKED_UP,  # its id, its content and its key; lines of the record are encoded together
        "bytes": 525,
        "wake-ups": 0,
        "requests": 0,
    }


def test_an_uncached_row_shares_transactions_and_turns_of_the_event_loop(a_row):
    counts = a_row["new"]
    assert counts["requests"] == 1
    assert counts["encodings"] == pytest.approx(6, abs=0.1)
    assert 0 < counts["statements"] <= 0.4
    assert 0 < counts["wake-ups"] <= 0.3
    assert 525 < counts["bytes"] <= 580
