"""``ostinato kill``: end kept model servers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from runner.errors import ConfigError
from runner.servers import kept

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "End model servers that `ostinato launch` keeps. A server that is not there is no error."
    parser.add_argument("names", nargs="*", metavar="NAME", help="as `ostinato ps` shows it")
    parser.add_argument("--all", action="store_true", help="end them all")


def main(args: argparse.Namespace) -> int:
    """End the servers. Prints the names of those that ran. Returns 0.

    Raises:
        ConfigError: neither names nor `--all`.
    """
    known = [one.name for one in kept.listed()]
    if not args.names and not args.all:
        raise ConfigError(f"which server? kept: {', '.join(known) or 'none'}; give names, or --all")
    for name in known if args.all else args.names:
        if kept.kill(name):
            print(name)
        else:
            print(f"no server {name!r} is kept", file=sys.stderr)
    return 0
