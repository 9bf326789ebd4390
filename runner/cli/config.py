"""Run `ostinato config`: list the config groups and their options, and print an option."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runner.cli.options import add_json
from runner.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "List and show config groups. An option is chosen with group=option, for example model=fake."
    actions = parser.add_subparsers(dest="action", required=True, metavar="ls|show")
    ls = actions.add_parser("ls", help="list the groups and their options, or the options of one group")
    ls.add_argument("group", nargs="?", metavar="GROUP")
    add_json(ls)
    show = actions.add_parser("show", help="print the YAML of an option, with its comments")
    show.add_argument("option", metavar="GROUP[/OPTION]")
    for action in (ls, show):
        action.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder of configs, searched first")


def main(args: argparse.Namespace) -> int:
    """List or show. Return 0. Raise ConfigError if there is no such group or option."""
    from runner.config.folders import folders
    from runner.wording.suggest import suggest

    places = folders(args.config_dir)
    groups: dict[str, list[str]] = {}
    for place in places:
        for file in sorted(place.glob("*/**/*.yaml")):
            option = file.relative_to(place / file.relative_to(place).parts[0]).with_suffix("").as_posix()
            options = groups.setdefault(file.relative_to(place).parts[0], [])
            if option not in options:
                options.append(option)
    if args.action == "ls":
        if args.group and args.group not in groups:
            raise ConfigError(
                f"there is no group '{args.group}'; there are {', '.join(groups)}{suggest(args.group, list(groups))}"
            )
        chosen = {args.group: groups[args.group]} if args.group else groups
        if args.json:
            print(json.dumps(chosen))
        else:
            width = max(map(len, chosen))
            print("\n".join(f"{group:<{width}}  {' '.join(options)}" for group, options in sorted(chosen.items())))
        return 0
    option = args.option if "/" in args.option else f"{args.option}/default"
    for place in places:
        if (file := place / f"{option}.yaml").is_file():
            print(file.read_text("utf-8"), end="")
            return 0
    group = option.partition("/")[0]
    if group not in groups:
        raise ConfigError(f"there is no group '{group}'; `ostinato config ls` lists them{suggest(group, list(groups))}")
    known = [f"{group}/{name}" for group, names in groups.items() for name in names]
    raise ConfigError(f"there is no option '{option}'; `ostinato config ls` lists them{suggest(option, known)}")
