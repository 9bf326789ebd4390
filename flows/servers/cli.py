"""`ostinato server start|status|stop`: the Prefect server that is kept, whose UI shows the history of all runs."""

from __future__ import annotations

import argparse
import json
import sys

from flows.servers import server


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Keep a Prefect server on this machine. Runs use it when it is there; its UI shows them, and all earlier ones."
    )
    verbs = parser.add_subparsers(dest="action", required=True, metavar="start|status|stop")
    start = verbs.add_parser("start", help="start it (or find it running), and say where its UI is")
    start.add_argument("--port", type=_port, default=server.DEFAULT_PORT, help="port on 127.0.0.1 (default: %(default)s)")
    status = verbs.add_parser("status", help="say whether it runs; exit code 1 when it does not")
    stop = verbs.add_parser("stop", help="stop it; the history stays")
    for verb in (start, status, stop):
        verb.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Do what was asked. Data on stdout, progress on stderr.

    Raises:
        OrchestratorError: the server cannot be started or stopped.
    """
    if args.action == "start":
        if server.status() is None:
            print("Starting the Prefect server; the first time it makes its database ...", file=sys.stderr)
        kept = server.start_kept(args.port)
        if kept.port != args.port:
            print(f"It runs already, on port {kept.port}; to move it, stop it first.", file=sys.stderr)
        return _show(kept, as_json=args.json)
    if args.action == "status":
        kept_now = server.status()
        return _show(kept_now, as_json=args.json) or (0 if kept_now else 1)
    stopped = server.stop_kept()
    print(json.dumps({"stopped": stopped}) if args.json else "stopped" if stopped else "not running")
    return 0


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 1 << 16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number from 1 to 65535")


def _show(kept: server.KeptServer | None, *, as_json: bool) -> int:
    if as_json:
        known = {"pid": kept.pid, "ui": kept.ui_url, "api": kept.api_url, "log": kept.log} if kept else {}
        print(json.dumps({"running": kept is not None, **known}))
    elif kept:
        print(f"{kept.ui_url}  (pid {kept.pid}; PREFECT_API_URL={kept.api_url})")
    else:
        print("not running")
    return 0
