"""Run `ostinato kill`: stop the model servers that `ostinato launch` started."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from runner.errors import ConfigError
from runner.servers import kept

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "Stop model servers that `ostinato launch` started. A server that does not run is not an error."
    parser.add_argument("names", nargs="*", metavar="NAME", help="as `ostinato ps` lists it")
    parser.add_argument("--all", action="store_true", help="stop all of them")


def main(args: argparse.Namespace) -> int:
    """Stop the servers, and print the names of those that ran. Return 0.

    Raises:
        ConfigError: neither names nor `--all` were given.
    """
    known = [one.name for one in kept.listed()]
    if not args.names and not args.all:
        raise ConfigError(f"no server is named; give names, or --all (running: {', '.join(known) or 'none'})")
    for name in known if args.all else args.names:
        if kept.kill(name):
            print(name)
        else:
            print(f"there is no server {name!r}", file=sys.stderr)
    return 0
