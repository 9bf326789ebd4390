#!/usr/bin/env bash
# statsmodels 0.15.0: mcnemar(exact=False) says p = 0 for two models that answer every row alike.
#
# Expected: without a single discordant pair there is no evidence of a difference: p = 1 (as with exact=True), or nan.
# Truth: the chi-square form divides 0 - 1 by 0, gets an infinite statistic, and returns p = 0.0.
# Why it matters: a comparison of a model with itself is reported as the most significant difference there can be.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'statsmodels==0.15.0' 'scipy==1.17.1' 'numpy<3' 'pandas<4'
"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

from statsmodels.stats.contingency_tables import mcnemar

table = [[40, 0], [0, 20]]  # both right, only the first, only the second, both wrong
found = {exact: mcnemar(table, exact=exact) for exact in (True, False)}
print("statsmodels", version("statsmodels"))
for exact, result in found.items():
    print(f"exact={exact}: statistic {result.statistic}, p {result.pvalue}")
raise SystemExit(0 if found[False].pvalue == 0.0 and not found[True].pvalue < 1 else 1)
PY
