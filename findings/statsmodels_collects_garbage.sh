#!/usr/bin/env bash
# statsmodels 0.15.0: each multipletests() runs a full garbage collection, so that five p-values can take as long as the heap is large.
#
# Expected: the correction of five p-values takes microseconds, whatever else the process holds.
# Truth: the function ends with gc.collect(). With three million objects alive, one call takes a large part of a second.
# Why it matters: it is called in loops (per metric, per pair of models, in property tests), where it becomes most of the time.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'statsmodels==0.15.0' 'scipy==1.17.1' 'numpy<3' 'pandas<4'
"$work/venv/bin/python" - <<'PY'
import gc
import time
from importlib.metadata import version

from statsmodels.stats.multitest import multipletests

collections = []
gc.callbacks.append(lambda phase, info: collections.append(info["generation"]) if phase == "start" else None)


def once():
    collections.clear()
    began = time.perf_counter()
    multipletests([0.01, 0.02, 0.03, 0.04, 0.05], method="holm")
    return time.perf_counter() - began, collections.count(2)


once()
small, full = once()
heap = [[number] for number in range(3_000_000)]
large, again = once()
print("statsmodels", version("statsmodels"))
print(f"five p-values: {small * 1000:.1f} ms; with {len(heap):,} lists alive: {large * 1000:.1f} ms; full collections a call: {full}, {again}")
raise SystemExit(0 if full >= 1 and again >= 1 else 1)
PY
