#!/usr/bin/env bash
# litellm 1.110.2: a stream that broke off ends with finish_reason "stop" and with a usage that nobody sent.
#
# Expected: no finish reason where the server sent none, and no usage where it sent none, so that a caller can see that the answer is not whole.
# Truth: litellm adds a last chunk with "stop", and with `include_usage` one with tokens that it has counted itself.
# Why it matters: half an answer is scored, cached and accounted for as a whole one. `received_finish_reason` of the wrapper is the way to tell.
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


def event(delta, reason=None):
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return "data: " + json.dumps({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}) + "\n\n"


body = b""


class Stub(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Stub)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"
asked = [{"role": "user", "content": "?"}]
body = "".join([event({"role": "assistant", "content": ""}), event({"content": "The answer is"})]).encode()
stream = litellm.completion("openai/m", asked, api_base=url, api_key="none", max_retries=0, stream=True, stream_options={"include_usage": True})
chunks = list(stream)
reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
usages = [chunk.usage.total_tokens for chunk in chunks if getattr(chunk, "usage", None)]
print("litellm", version("litellm"), "finish reasons", reasons, "usage", usages, "received", stream.received_finish_reason)
raise SystemExit(0 if reasons == ["stop"] and usages and stream.received_finish_reason is None else 1)
PY
