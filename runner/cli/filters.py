"""Filters of `ostinato ls`: ``experiment=``, ``model=``, ``status=``, ``tag=`` and ``since=``."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEYS = ("experiment", "model", "status", "tag", "since")

_STAMP = re.compile(r"\d{8}-\d{6}")
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(m|min|h|d|w)")
_SECONDS = {"m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Filters:
    """Conditions that a record must meet, all of them. Values separated by commas are alternatives; ``*`` stands for any text.

    Args:
        given: ``key=value``; a tag may be asked for several times.

    Raises:
        ConfigError: there is no such key, or `since` is not a time.
    """

    def __init__(self, given: Sequence[str]) -> None:
        self._patterns: defaultdict[str, list[list[str]]] = defaultdict(list)
        self._since = ""
        for word in given:
            key, sign, value = word.partition("=")
            if not sign or key not in KEYS:
                raise ConfigError(
                    f"'{word}': there is no such filter{suggest(key, KEYS) or ';'} filters are {', '.join(KEYS)}, as key=value"
                )
            if key == "since":
                self._since = _time(value).strftime("%Y%m%d-%H%M%S")
            else:
                self._patterns[key].append(value.split(","))

    def named(self, path: Path) -> bool:
        """Return whether the folder of a record meets those conditions that its name tells."""
        stamp = _STAMP.search(path.name)
        if self._since and (stamp is None or stamp[0] < self._since):
            return False
        return all(_any(path.parent.name, patterns) for patterns in self._patterns["experiment"])

    def match(self, facts: dict[str, Any]) -> bool:
        """Return whether the facts that `ls` prints of a record meet the other conditions. A sweep has no one model."""
        model = facts.get("model") or ""
        names = (model, model.rpartition("/")[2])
        return (
            all(any(_any(name, patterns) for name in names) for patterns in self._patterns["model"])
            and all(_any(facts["status"] or "", patterns) for patterns in self._patterns["status"])
            and all(any(_any(tag, patterns) for tag in facts["tags"]) for patterns in self._patterns["tag"])
        )


def _any(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _time(text: str) -> datetime:
    """Return the local time that ``2d`` or ``2026-11-30`` stands for. Raises ConfigError."""
    if found := _AGO.fullmatch(text.strip()):
        return datetime.now().astimezone() - timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise ConfigError(f"since={text}: give an age, such as 36h or 2d, or a date, such as 2026-11-30T18:00") from None
