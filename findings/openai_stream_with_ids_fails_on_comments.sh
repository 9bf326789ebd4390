#!/usr/bin/env bash
# openai 2.54.0 and 3.57.0: a stream whose events have an `id` fails at the first comment (": keep-alive") after it.
#
# Expected: an event without data is not dispatched (WHATWG HTML, 9.2.6: "If the data buffer is an empty string, ... return").
# Truth: once an `id` was read, every empty line makes an event with empty data, which is decoded as JSON: JSONDecodeError in mid-stream.
# Why it matters: servers that name their events and keep long answers alive with comments are legal, and the answer is lost after it was paid for.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'openai==2.54.0'
LITELLM_LOCAL_MODEL_COST_MAP=True "$work/venv/bin/python" -W ignore - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import openai


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
body = ("id: 1\n" + event({"content": "4"}) + ": keep-alive\n\n" + "id: 2\n" + event({}, "stop") + "data: [DONE]\n\n").encode()
client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
got = []
try:
    for chunk in client.chat.completions.create(model="m", messages=asked, stream=True):
        got.append(chunk.choices[0].delta.content)
    failed = None
except json.JSONDecodeError as error:
    failed = error
print("openai", version("openai"), "pieces", got, "then", repr(failed))
raise SystemExit(0 if failed is not None else 1)
PY
