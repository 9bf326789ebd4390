#!/usr/bin/env bash
# litellm 1.110.2: of an answer of Mistral's in several text parts, only the last part arrives.
#
# Expected: the text parts joined, as the thinking parts are (Mistral's models that think answer with a list: thinking, then text).
# Truth: each text part replaces the one before it.
# Why it matters: the first half of the answer is gone, without an error, and what is left is scored.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'litellm==1.110.2'
LITELLM_LOCAL_MODEL_COST_MAP=True "$work/venv/bin/python" -W ignore - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import litellm

PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Two and two."}]},
    {"type": "text", "text": "The answer is "},
    {"type": "text", "text": "4."},
]


class Stub(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": PARTS}, "finish_reason": "stop"}
        data = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Stub)
threading.Thread(target=server.serve_forever, daemon=True).start()
asked = [{"role": "user", "content": "2 + 2?"}]
answer = litellm.completion("mistral/m", asked, api_base=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)
message = answer.choices[0].message
print("litellm", version("litellm"))
print(f"sent {[part['text'] for part in PARTS[1:]]}, got {message.content!r}; reasoning {getattr(message, 'reasoning_content', None)!r}")
raise SystemExit(0 if message.content == "4." else 1)
PY
