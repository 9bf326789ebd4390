"""Read configs that older versions have recorded: what a new field changes stays as it was for them."""

from __future__ import annotations

from typing import Any

BEFORE: dict[str, dict[str, Any]] = {"model": {"thinking": "keep"}}
"""Fields that came later and whose default changes what a run does, by group: their values in records that lack them.

``model.thinking`` (record format 2): in runs of format 1, thinking was part of the answer that was parsed and scored.
"""

RENAMED: dict[str, str] = {"cache.size_limit_gb": "cache.size"}
"""Keys that had another name, with today's. The old name is read everywhere, and a config has the hash that it had with it."""

_OLD_NAMES = {new: old for old, new in RENAMED.items()}

ONCE: dict[str, dict[str, Any]] = {"launch": {"parallel": 4}}
"""Fields whose default is null today, with the earlier default: null has the hash that this had."""

SINCE: dict[str, dict[str, Any]] = {
    "model": {"thinking": "split", "software": None, "unsupported": "warn"},
    "limits": {"retry_empty": 0, "stream": "auto", "silence_s": 300.0},
    "cache": {"served": "warn"},
    "adapter": {"repair": False},
    "prompt": {
        "messages": None,
        "files": None,
        "turns": [],
        "simulated_user": None,
        "tools": None,
        "tool_choice": None,
        "tool_results": None,
        "tool_server": None,
        "tool_timeout_s": 30.0,
        "max_turns": 10,
    },
    "scoring": {
        "straight_quotes": False,
        "decimal": "point",
        "refused": "leave_out",
        "errors": "leave_out",
        "truncated": "score",
        "answers": "first",
        "pass_at": [],
        "models": {},
        "budget": {"usd": None, "tokens": None, "requests": None, "unknown_price": "refuse"},
        "calibration": None,
    },
    "data": {
        "cluster": None,
        "where": None,
        "ids": None,
        "range": None,
        "shard": None,
        "sample": None,
        "stratify": None,
        "token_env": None,
    },
}
"""Fields that came later, with their defaults (in `scoring` those of scorers, several included).

With these a config has the hash that it had before the field was added.
"""


def as_recorded(plain: Any) -> Any:
    """Return a recorded config, as plain data, with the fields of `BEFORE` that it lacks."""
    if not isinstance(plain, dict):
        return plain
    known = {group: plain[group] for group in BEFORE if isinstance(plain.get(group), dict)}
    return {**plain, **{group: {**BEFORE[group], **fields} for group, fields in known.items()}}


def hashed(group: str, plain: Any) -> Any:
    """Return a group of a config, as plain data, as it is hashed: without fields of `SINCE` that have their default."""
    if not isinstance(plain, dict):
        return plain
    since, once = SINCE.get(group, {}), ONCE.get(group, {})
    kept = {
        _OLD_NAMES.get(f"{group}.{name}", f".{name}").rpartition(".")[2]: once.get(name) if value is None else value
        for name, value in plain.items()
        if name not in since or value != since[name]
    }
    if isinstance(several := kept.get("scorers"), dict):
        kept["scorers"] = {name: hashed(group, scorer) for name, scorer in several.items()}
    return kept
