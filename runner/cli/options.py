"""Options that several verbs share: which config is meant, which run, and how results are printed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ConfigError

if TYPE_CHECKING:
    from runner.config.compose import Composition


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare overrides, ``-cn`` and ``-cd``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="Hydra overrides: key=value, group=option, +key=value, ~key"
    )
    parser.add_argument("-cn", "--config-name", default="config", metavar="NAME", help="the primary config (default: config)")
    parser.add_argument(
        "-cd", "--config-dir", metavar="DIR", help="a folder of configs, searched before ./conf and the shipped ones"
    )


def composed(args: argparse.Namespace) -> Composition:
    """Return the composition that the options describe. Raise ConfigError if it cannot be composed."""
    from runner.config.compose import compose

    return compose(args.overrides, config_name=args.config_name, config_dir=args.config_dir)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Declare RUN and ``--runs-dir``."""
    parser.add_argument("run", nargs="?", default="latest", metavar="RUN", help="a folder, a name, a stamp, or latest (default)")
    add_runs_dir(parser)


def add_run_and_overrides(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare RUN and overrides, in any order; `what` says what the overrides are for."""
    parser.add_argument("words", nargs="*", metavar="[RUN] [key=value]", help=f"the run (default: latest), and {what}")


def run_and_overrides(args: argparse.Namespace) -> tuple[str, list[str]]:
    """Return RUN and the overrides. Raise ConfigError if several runs are named."""
    named = [word for word in args.words if "=" not in word] or ["latest"]
    if len(named) > 1:
        raise ConfigError(f"one run at a time, not {' '.join(named)}")
    return named[0], [word for word in args.words if "=" in word]


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """Declare ``--runs-dir``."""
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="the folder of all runs (default: runs)"
    )


def add_display(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json`` and ``--display``: how progress and results are shown."""
    add_json(parser)
    parser.add_argument(
        "--display",
        choices=["rich", "plain", "none"],
        help="how progress is shown on stderr (default: rich on a terminal); none: no summary either",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_tag(parser: argparse.ArgumentParser) -> None:
    """Declare ``--tag``."""
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="WORD",
        help="record a word to find the run by (ostinato ls tag=WORD); may be repeated",
    )


def tagged(args: argparse.Namespace) -> list[str]:
    """Return the tags, each once. Raise ConfigError for one that is not a word, or looks like a secret."""
    from runner.records.tags import checked_tags

    return checked_tags(args.tag, "--tag")


def count(text: str) -> int:
    """Read an option's value as a whole number of 0 or more. Raise ArgumentTypeError if it is not one."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def shorten(path: Path) -> str:
    """Return `path` relative to the working directory if it is inside it, else as it is."""
    text, here = str(path), str(Path.cwd()).rstrip(os.sep) + os.sep
    return text[len(here) :] or "." if f"{text}{os.sep}".startswith(here) else text
