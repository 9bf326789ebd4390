"""Run `ostinato models`: fetch, list and delete weights on this machine."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import msgspec

from runner.cli.options import add_json
from runner.cli.progress import fetching
from runner.models import aliases, weights

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "Weights on this machine: fetch them once, use them offline."
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    names = f"{', '.join(weights.REGISTERED)}, hf:org/repo/file.gguf[@revision] or a model's folder"
    pull = verbs.add_parser("pull", help="fetch weights, or write the GGUF file of a folder, and print its path")
    pull.add_argument("name", metavar="NAME", help=names)
    ls = verbs.add_parser(
        "ls", help="list the weights on this machine, those known by name, and the aliases of registered models"
    )
    add_json(ls)
    rm = verbs.add_parser("rm", help="delete fetched weights, or forget an alias")
    rm.add_argument("name", metavar="NAME", help=names)


def main(args: argparse.Namespace) -> int:
    """Run the action. Return 0.

    Raises:
        ConfigError: there are no such weights.
        LaunchError: they could not be fetched or stored.
    """
    if args.action == "pull":
        with fetching(args.name) as progress:
            path = weights.pull(args.name, progress=progress)
        print(path)
    elif args.action == "rm":
        if aliases.remove(args.name) or weights.remove(args.name):
            print(args.name)
        else:
            print(f"{args.name} is not on this machine", file=sys.stderr)
    else:
        _list(as_json=args.json)
    return 0


def _list(*, as_json: bool) -> None:
    here = {stored.name: (stored, path) for stored, path in weights.stored()}
    if as_json:
        models = [
            {
                "name": name,
                "here": True,
                "path": str(path),
                "bytes": stored.size,
                "sha256": stored.sha256,
                "licence": stored.licence,
            }
            for name, (stored, path) in here.items()
        ]
        models += [
            {"name": name, "here": False, "path": None, "bytes": known.size, "sha256": known.sha256, "licence": known.licence}
            for name, known in weights.REGISTERED.items()
            if name not in here
        ]
        print(json.dumps({"models": models, "aliases": [msgspec.to_builtins(alias) for alias in aliases.listed()]}))
        return
    for name, (stored, path) in here.items():
        print(f"{name}  {stored.size / 1e6:.0f} MB  {stored.licence or 'licence unknown'}  {path}")
    for name, known in weights.REGISTERED.items():
        if name not in here:
            print(f"{name}  {known.size / 1e6:.0f} MB  {known.licence}  (not here: ostinato models pull {name})")
    for alias in aliases.listed():
        latest = alias.latest
        print(f"{alias.name}@{latest.version}  {latest.model['name']}  of {latest.registered_at}  (model={alias.name}@latest)")
