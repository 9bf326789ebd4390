#!/usr/bin/env bash
# distributed 2026.8.0: LocalCluster(dashboard_address=None), which "disables the dashboard", listens for HTTP on port 8787 all the same.
#
# Expected: without a dashboard nothing listens but the scheduler and its workers.
# Truth: the HTTP server stays, with metrics, health and (where bokeh is installed) the dashboard's routes. None means its usual port.
# Why it matters: two programs with a private cluster each warn of a port that neither has asked for. "127.0.0.1:0" is what one wants.
# Seen on 2026-12-01. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'distributed==2026.8.0'
"$work/venv/bin/python" -W ignore - <<'PY'
import urllib.request
from importlib.metadata import version

from distributed import LocalCluster

print("distributed", version("distributed"))
with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
    port = cluster.scheduler.http_server.port
    health = urllib.request.urlopen(f"http://127.0.0.1:{port}/health").read()
print("dashboard_address=None: port", port, "answers", health)
raise SystemExit(0 if port and health == b"ok" else 1)
PY
