#!/usr/bin/env bash
# litellm 1.110.2: a model of Fireworks that is not in the price map costs 0.0 dollars, where another unknown model is an error.
#
# Expected: NotFoundError or a similar error, as for "openai/no-such-model": no price is known.
# Truth: for fireworks_ai the size is looked for in the name, and without one a default entry of price 0 is taken.
# Why it matters: a budget in dollars that is kept with completion_cost() is never spent.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'litellm==1.110.2'
LITELLM_LOCAL_MODEL_COST_MAP=True "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import litellm


def price(model):
    try:
        return litellm.cost_per_token(model=model, prompt_tokens=1_000_000, completion_tokens=1_000_000)
    except Exception as error:
        return type(error).__name__


models = ["openai/no-such-model", "fireworks_ai/accounts/fireworks/models/no-such-model"]
found = [price(model) for model in models]
print("litellm", version("litellm"))
for model, value in zip(models, found):
    print(f"a million tokens in and out of {model}: {value}")
raise SystemExit(0 if isinstance(found[0], str) and found[1] == (0.0, 0.0) else 1)
PY
