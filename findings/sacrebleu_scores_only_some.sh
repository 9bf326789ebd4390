#!/usr/bin/env bash
# sacrebleu 2.6.0: references in the shape of one list per answer are taken for streams, and only the first answers are scored.
#
# Expected: an error for three answers with references of another shape ([[r1], [r2], [r3]] instead of [[r1, r2, r3]]).
# Truth: the streams are zipped with the answers, and what is longer is cut off: the score is that of the first answer against all references.
# Why it matters: three wrong answers out of four can score 100.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'sacrebleu==2.6.0'
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import sacrebleu

right = "the small cat sat on the old mat"
answers = [right, "no", "no", "no"]
references = [right, "a dog ran over the wide green field", "rain fell on the town all night", "we left before the sun was up"]
streams = sacrebleu.corpus_chrf(answers, [references]).score
lists = sacrebleu.corpus_chrf(answers, [[reference] for reference in references]).score
print("sacrebleu", version("sacrebleu"))
print(f"one right of four, chrF: {streams:.1f} by streams, {lists:.1f} by one list per answer")
raise SystemExit(0 if streams < 60 and lists > 99 else 1)
PY
