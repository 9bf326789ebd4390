#!/usr/bin/env bash
# json-repair 0.64.4: a typographic minus before a number is dropped, and the log of repairs stays empty.
#
# Expected: {"answer": −5} (U+2212, as many models write it) becomes -5, or the text "−5", and the log says that something changed.
# Truth: it becomes 5. `logging=True` returns an empty list of repairs, so a caller cannot tell. "<5" and "±5" become 5 as well.
# Why it matters: a score computed from repaired JSON takes the opposite number for the answer.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'json-repair==0.64.4'
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

from json_repair import repair_json

print("json-repair", version("json-repair"))
same = True
for sign in ("-", "\u2212", "<", "\u00b1"):
    value, log = repair_json('{"answer": %s5}' % sign, return_objects=True, logging=True)
    print(f"{sign}5 -> {value}, log {log}")
    same &= value == {"answer": -5 if sign == "-" else 5} and log == []
raise SystemExit(0 if same else 1)
PY
