#!/usr/bin/env bash
# hydra-core 1.3.2: range(0.7,1,0.1) sweeps four values, one of which is the end that a range excludes.
#
# Expected: three values, 0.7, 0.8 and 0.9, as range(7,10,1) has three.
# Truth: the values are summed up in floating point. The third sum is 0.8999999999999999, so another step is taken, and 1.0 is swept too.
#   0.7999999999999999 is also a value of the sweep, and not equal to the 0.8 of another run.
# Why it matters: a sweep pays for a cell too many, and joins of results by value miss.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'hydra-core==1.3.2' 'omegaconf==2.3.0'
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

from hydra.core.override_parser.overrides_parser import OverridesParser


def values(text):
    (override,) = OverridesParser.create().parse_overrides([f"temperature={text}"])
    return list(override.sweep_iterator())


print("hydra-core", version("hydra-core"))
for text in ("range(7,10,1)", "range(0.7,1,0.1)"):
    print(text, values(text))
raise SystemExit(0 if len(values("range(0.7,1,0.1)")) == 4 and len(values("range(7,10,1)")) == 3 else 1)
PY
