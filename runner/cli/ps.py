"""Run `ostinato ps`: list the model servers that `ostinato launch` started."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner.cli.display import aligned
from runner.errors import ConfigError
from runner.servers import kept
from runner.wording.suggest import did_you_mean

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "List the model servers that `ostinato launch` started."
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print one JSON object")
    shape.add_argument("--key", metavar="NAME", help="print only the API key of this server, for an environment variable")


def main(args: argparse.Namespace) -> int:
    """Print a line per server. Return 0.

    Raises:
        ConfigError: `--key` names a server that does not run.
    """
    known = kept.listed()
    if args.key is not None:
        keys = {one.name: one.api_key for one in known}
        if args.key not in keys:
            raise ConfigError(f"there is no server {args.key!r}{did_you_mean(args.key, keys) if keys else ''}")
        print(keys[args.key])
    elif args.json:
        print(json.dumps({"servers": [_facts(one) for one in known]}))
    elif known:
        rows = [("NAME", "BACKEND", "PID", "UP", "URL")]
        rows += [(one.name, one.settings.backend, str(one.pid), _age(one.started_at), one.api_base) for one in known]
        print("\n".join(aligned(rows)))
    else:
        print("no servers are running")
    return 0


def _facts(one: kept.Kept) -> dict[str, object]:
    return {
        "name": one.name,
        "model": one.model,
        "identity": one.identity,
        "backend": one.settings.backend,
        "context": one.settings.context,
        "parallel": one.settings.parallel,
        "pid": one.pid,
        "started_at": one.started_at.isoformat(),
        "api_base": one.api_base,
        "log": one.log,
    }


def _age(since: datetime) -> str:
    seconds = int((datetime.now(UTC) - since).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"
