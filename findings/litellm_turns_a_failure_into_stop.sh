#!/usr/bin/env bash
# litellm 1.110.2: an answer that the server ended with finish_reason "error" or "abort" arrives as a normal "stop".
#
# Expected: the reason as the server gave it (the field is an open string in practice: OpenRouter says "error", vLLM says "abort").
# Truth: reasons that litellm does not know become "stop". The true one is left in provider_specific_fields["native_finish_reason"].
# Why it matters: half an answer of a server that broke down is scored, cached and paid for as if it were whole.
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

reason = ""


class Stub(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "The answer is"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": reason}]}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Stub)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("litellm", version("litellm"))
same = True
for reason in ("length", "error", "abort"):
    asked = [{"role": "user", "content": "?"}]
    answer = litellm.completion("openai/m", asked, api_base=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)
    choice = answer.choices[0]
    kept = (getattr(choice, "provider_specific_fields", None) or {}).get("native_finish_reason")
    print(f"sent {reason!r}, got {choice.finish_reason!r} (native_finish_reason {kept!r})")
    same &= choice.finish_reason == ("length" if reason == "length" else "stop")
raise SystemExit(0 if same else 1)
PY
