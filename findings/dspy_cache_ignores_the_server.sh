#!/usr/bin/env bash
# dspy 3.4.1: of two servers that serve one model name, the second is never asked. Its answers are the cached ones of the first.
#
# Expected: the address is a part of the cache key, as the model and the temperature are.
# Truth: api_base is left out of the key, like the API key.
# Why it matters: a comparison of two builds or two quantisations behind one model name compares the first with itself.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'dspy==3.4.1'
DSPY_CACHEDIR="$work/cache" LITELLM_LOCAL_MODEL_COST_MAP=True "$work/venv/bin/python" -W ignore - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import dspy


def served(text):
    asked = []

    class Stub(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.rfile.read(int(self.headers["content-length"])))
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            data = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1", asked


print("dspy", version("dspy"))
answers, requests = [], []
for text in ("from the first", "from the second"):
    address, asked = served(text)
    answers.append(dspy.LM("openai/m", api_base=address, api_key="none")("Who are you?"))
    requests.append(len(asked))
print("answers:", answers, " requests:", requests)
raise SystemExit(0 if requests == [1, 0] and answers[0] == answers[1] else 1)
PY
