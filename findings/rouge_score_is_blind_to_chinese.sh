#!/usr/bin/env bash
# rouge-score 0.1.2: two identical Chinese texts score 0, and -5 is a perfect match for 5.
#
# Expected: a text compared with itself scores 1 in any language; a different number does not.
# Truth: the default tokenizer keeps a-z and 0-9 and drops everything else. Nothing is left of a Chinese text, and the score of nothing is 0.
# Why it matters: a benchmark of summaries in another script gives 0 for every model, without a warning.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'rouge-score==0.1.2'
"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

from rouge_score.rouge_scorer import RougeScorer

scorer = RougeScorer(["rougeL"])
pairs = [("the cat sat", "the cat sat"), ("猫坐在垫子上", "猫坐在垫子上"), ("5", "-5")]
found = [scorer.score(target, answer)["rougeL"].fmeasure for target, answer in pairs]
print("rouge-score", version("rouge-score"))
for (target, answer), value in zip(pairs, found):
    print(f"{target} / {answer}: rougeL {value}")
raise SystemExit(0 if found == [1.0, 0.0, 1.0] else 1)
PY
