#!/usr/bin/env bash
# math-verify 0.9.0: a time limit given as 2.0 instead of 2 makes every answer unreadable, and every comparison False.
#
# Expected: `parsing_timeout` and `timeout_seconds` are seconds, so 2.0 means the same as 2, or raises a TypeError.
# Truth: the limit goes to signal.alarm(), which refuses a float. The TypeError is caught and logged at debug level only:
#   `parse` returns [], `verify` returns False.
# Why it matters: a run that is scored this way reports an accuracy of 0 and no error.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'math-verify[antlr4_13_2]==0.9.0' 'sympy==1.14.0'
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

from math_verify import parse, verify

limits = (2, 2.0)
read = [parse("$18$", parsing_timeout=limit) for limit in limits]
same = [verify(read[0], read[0], timeout_seconds=limit) for limit in limits]
print("math-verify", version("math-verify"))
for limit, found, equal in zip(limits, read, same):
    print(f"limit {limit!r}: parse('$18$') is {found}, 18 equals 18 is {equal}")
assert read[0] and same[0]
raise SystemExit(0 if read[1] == [] and same[1] is False else 1)
PY
