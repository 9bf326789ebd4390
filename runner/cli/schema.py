"""Run `ostinato schema`: print the JSON Schema of config files, or put it beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Print the JSON Schema of config files, by which an editor completes keys, explains them and underlines mistakes. "
        "Options of your own are in it, too. A file names its schema in a comment: # yaml-language-server: $schema=PATH"
    )
    parser.add_argument("group", nargs="?", metavar="GROUP", help="of the option files of a group; default: of whole configs")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="DIR",
        help="write DIR/schema.json, and a GROUP/schema.json into each folder of a group in DIR",
    )
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder of configs, searched first")


def main(args: argparse.Namespace) -> int:
    """Print or write. Return 0. Raise ConfigError if there is no such group."""
    from runner.config.folders import folders
    from runner.config.json_schema import json_schema, write_into, written

    places = folders(args.config_dir)
    if args.into is None:
        print(written(json_schema(places, args.group)), end="")
        return 0
    for file in write_into(args.into, places, args.group):
        print(file)
    return 0
