"""Run `ostinato cache`: inspect the response cache, and remove entries."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.options import add_json
from runner.errors import CacheError, ConfigError

if TYPE_CHECKING:
    import argparse

    from runner.cache import Cache, Stored

DAY_S = 86_400
REPORT_EVERY_S = 5.0
"""Seconds between two lines on a pipe while entries are removed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "Inspect the response cache, and remove entries."
    actions = parser.add_subparsers(dest="action", required=True, metavar="stats|ls|show|prune|clear")
    made = {
        "stats": actions.add_parser("stats", help="entries, bytes, limit"),
        "ls": actions.add_parser("ls", help="list entries, oldest first"),
        "show": actions.add_parser("show", help="print one entry as JSON"),
        "prune": actions.add_parser("prune", help="remove expired entries, or old ones"),
        "clear": actions.add_parser("clear", help="remove all entries"),
    }
    made["ls"].add_argument("-n", type=int, default=50, metavar="N", help="how many (default: 50)")
    made["show"].add_argument("key", metavar="KEY", help="the key, or a prefix of it")
    made["prune"].add_argument("--older-than", type=float, metavar="DAYS", help="remove entries older than DAYS days")
    made["clear"].add_argument("--yes", action="store_true", help="confirm")
    for action in made.values():
        action.add_argument("--dir", type=Path, metavar="DIR", help="the cache folder (default: cache/ in OSTINATO_HOME)")
        add_json(action)


def main(args: argparse.Namespace) -> int:
    """Run the action. Return 0.

    Raises:
        CacheError: there is no such entry.
        ConfigError: `clear` without ``--yes``.
    """
    import msgspec

    from runner.cache import Cache
    from runner.system.paths import home

    cache = Cache((args.dir or home() / "cache").expanduser().absolute())
    match args.action:
        case "stats":
            stats = cache.stats()
            lines = [f"{name}: {stats[name]:,}" for name in ("entries", "bytes", "size_limit")]
            _print(
                args,
                {name: stats[name] for name in ("folder", "entries", "bytes", "size_limit")},
                "\n".join([f"folder: {stats['folder']}", *lines]),
            )
        case "ls":
            found = [(key, entry) for _, (key, entry) in zip(range(args.n), cache.entries(), strict=False)]
            facts = [
                {
                    "key": key,
                    "created": entry.created,
                    "model": entry.request.model if entry.request else None,
                    "served": _served(entry),
                }
                for key, entry in found
            ]
            lines = [
                f"{key[:12]}  {datetime.fromtimestamp(entry.created).astimezone():%Y-%m-%d %H:%M}  "
                f"{entry.request.model if entry.request else '-'}  {(entry.response.choices[0].text or '')[:60]!r}"
                for key, entry in found
            ]
            _print(args, {"entries": facts}, "\n".join(lines) if lines else "the cache is empty")
        case "show":
            key, entry = next(((key, entry) for key, entry in cache.entries() if key.startswith(args.key)), (None, None))
            if entry is None:
                raise CacheError(f"the cache in {cache.folder} has no entry '{args.key}'; `ostinato cache ls` lists them")
            shown = {"key": key, "served": _served(entry), **msgspec.to_builtins(entry)}
            print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
        case "prune":
            removed = _pruned(cache, None if args.older_than is None else args.older_than * DAY_S)
            _print(args, {"removed": removed}, f"{removed:,} entries removed")
        case "clear":
            if not args.yes:
                raise ConfigError(f"this removes every cached answer in {cache.folder}; add --yes to do it")
            removed = cache.clear()
            _print(args, {"removed": removed}, f"{removed:,} entries removed")
    cache.close()
    return 0


def _pruned(cache: Cache, older_than: float | None) -> int:
    from runner.cli.progress import Progress

    with Progress(REPORT_EVERY_S) as show:
        return cache.prune(older_than=older_than, progress=lambda done, total: show(f"{done:,} of {total:,} entries removed"))


def _served(entry: Stored) -> dict[str, str | None]:
    """Return by which model an entry was made: as its answer names it, and the weights that the server named, if it did."""
    endpoint = entry.request.endpoint if entry.request else None
    weights = (endpoint or "").partition("#")[2] or None
    return {"model": entry.response.model, "fingerprint": entry.response.system_fingerprint, "weights": weights}


def _print(args: argparse.Namespace, facts: dict[str, object], text: str) -> None:
    print(json.dumps(facts) if args.json else text)
