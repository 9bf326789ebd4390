#!/usr/bin/env bash
# litellm 1.110.2: a streamed answer whose text has "[DONE]" in it loses that piece, and what its end means.
#
# Expected: the event that is `[DONE]`, and nothing else, ends a stream; its text is text.
# Truth: for providers read by litellm's own client (hosted_vllm and more), any line with "[DONE]" in it is taken for the end, "stop".
# Why it matters: an answer about server-sent events, code or logs comes back without these words, and one that was cut off says that it is whole.
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
body = "".join([event({"content": "A stream ends with "}), event({"content": "data: [DONE]"}), event({"content": "."}), event({}, "length"), "data: [DONE]\n\n"]).encode()
chunks = list(litellm.completion("hosted_vllm/m", asked, api_base=url, api_key="none", max_retries=0, stream=True))
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
print("litellm", version("litellm"), "text", repr(text), "finish reasons", reasons)
raise SystemExit(0 if "[DONE]" not in text else 1)
PY
