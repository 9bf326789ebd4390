#!/usr/bin/env bash
# math-verify 0.9.0: \boxed{east} equals \boxed{seat}, and \boxed{no} equals \boxed{on}.
#
# Expected: two different words in a box are different answers, as they are inside \text{}.
# Truth: a word is read as the product of its letters, which does not know their order: E*a*s*t.
# Why it matters: questions with one word as their answer are scored right for any anagram of it, and the answer counts as parsed.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'math-verify[antlr4_13_2]==0.9.0' 'sympy==1.14.0'
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

from math_verify import parse, verify


def equal(one, other):
    return verify(parse(one), parse(other))


pairs = [(r"\boxed{east}", r"\boxed{seat}"), (r"\boxed{no}", r"\boxed{on}"), (r"\boxed{\text{east}}", r"\boxed{\text{seat}}")]
print("math-verify", version("math-verify"))
for one, other in pairs:
    print(f"{one:22} {other:22} equal: {equal(one, other)}  {parse(one)}")
raise SystemExit(0 if equal(*pairs[0]) and equal(*pairs[1]) and not equal(*pairs[2]) else 1)
PY
