#!/usr/bin/env bash
# math-verify 0.9.0: \boxed{12\,345}, the way that LaTeX writes twelve thousand, is read as 357.
#
# Expected: 12345, as for \boxed{12,345} and \boxed{12345}, or nothing.
# Truth: the thin space is a term boundary, and the two groups of digits are added: 12 + 345.
# Why it matters: the answer of a model that sets its numbers properly is wrong, or is right by accident, without a warning.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'math-verify[antlr4_13_2]==0.9.0' 'sympy==1.14.0'
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

from math_verify import parse, verify

texts = [r"$\boxed{12345}$", r"$\boxed{12,345}$", r"$\boxed{12\,345}$"]
read = {text: parse(text) for text in texts}
print("math-verify", version("math-verify"))
for text, found in read.items():
    print(f"{text:22} {found}")
thin = read[texts[2]]
print("equals 357:", verify(parse("$357$"), thin), " equals 12345:", verify(parse("$12345$"), thin))
assert verify(parse("$12345$"), read[texts[1]])
raise SystemExit(0 if verify(parse("$357$"), thin) and not verify(parse("$12345$"), thin) else 1)
PY
