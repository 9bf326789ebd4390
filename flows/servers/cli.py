"""`ostinato server start|status|stop`: keep a Prefect server, whose UI shows the history of all runs."""

from __future__ import annotations

import argparse
import json
import sys

from flows.servers import kept


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Keep a Prefect server on this machine. Runs use it while it is running; its UI shows them and all earlier ones."
    )
    verbs = parser.add_subparsers(dest="action", required=True, metavar="start|status|stop")
    start = verbs.add_parser("start", help="start it (or find it running), and print the address of its UI")
    start.add_argument("--port", type=_port, default=kept.DEFAULT_PORT, help="port on 127.0.0.1 (default: %(default)s)")
    status = verbs.add_parser("status", help="say whether it is running; exit code 1 if it is not")
    stop = verbs.add_parser("stop", help="stop it; the history stays")
    for verb in (start, status, stop):
        verb.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Run the action. Writes data to stdout, progress to stderr.

    Raises:
        OrchestratorError: the server cannot be started or stopped.
    """
    if args.action == "start":
        if kept.status() is None:
            print("Starting the Prefect server; the first time it makes its database ...", file=sys.stderr)
        server = kept.start(args.port)
        if server.port != args.port:
            print(f"It is already running, on port {server.port}; to move it, stop it first.", file=sys.stderr)
        return _show(server, as_json=args.json)
    if args.action == "status":
        running = kept.status()
        return _show(running, as_json=args.json) or (0 if running else 1)
    stopped = kept.stop()
    print(json.dumps({"stopped": stopped}) if args.json else "stopped" if stopped else "not running")
    return 0


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 1 << 16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number from 1 to 65535")


def _show(server: kept.KeptServer | None, *, as_json: bool) -> int:
    if as_json:
        known = {"pid": server.pid, "ui": server.ui_url, "api": server.api_url, "log": server.log} if server else {}
        print(json.dumps({"running": server is not None, **known}))
    elif server:
        print(f"{server.ui_url}  (pid {server.pid}; PREFECT_API_URL={server.api_url})")
    else:
        print("not running")
    return 0
