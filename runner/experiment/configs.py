"""Compare the configs of recorded runs, and find those that set a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runner.config.load import dump
from runner.errors import OstinatoError
from runner.records import list_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.records import RunFolder

NOTHING: Final = object()
"""Stands for the value of a key that one of two configs lacks."""


def config_differences(a: RunFolder, b: RunFolder) -> list[tuple[str, Any, Any]]:
    """Return the keys in which two runs differ, with their values, in the order of the config.

    Besides the config: ``rows`` (the fingerprint of the data) and ``files.KEY`` (the digest of a file that the config names).

    Raises:
        ConfigError: a ``config.yaml`` cannot be read.
        RecordError: a manifest cannot be read.
    """
    one, other = _facts(a), _facts(b)
    keys = [*one, *(key for key in other if key not in one)]
    return [
        (key, one.get(key, NOTHING), other.get(key, NOTHING)) for key in keys if one.get(key, NOTHING) != other.get(key, NOTHING)
    ]


def runs_that_set(key: str, runs_dir: Path) -> list[tuple[Path, Any]]:
    """Return the runs whose config has another value at `key` than the default config, with the value; oldest first.

    For a group, the value is the whole group. Runs whose config cannot be read are left out.
    """
    from runner.config.schema import RunConfig

    default = _at(dump(RunConfig()), key)
    found = []
    for run in list_runs(runs_dir):
        try:
            value = _at(run.manifest().get("config", {}), key)
        except OstinatoError:
            continue
        if value is not NOTHING and value != default:
            found.append((run.path, value))
    return found


def _facts(run: RunFolder) -> dict[str, Any]:
    """Return all values of a run's config by key, and what it read."""
    from runner.config.compose import read_run

    manifest = run.manifest()
    rows = {"rows": manifest.get("data", {}).get("fingerprint")}
    files = {f"files.{key}": digest for key, digest in manifest.get("files", {}).items()}
    return {**dict(_leaves(dump(read_run(run.config_file)))), **rows, **files}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dicts by path; lists are values."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _at(value: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return NOTHING
        value = value[part]
    return value
