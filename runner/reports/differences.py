"""The differences between the configs of a sweep's cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.reports.text import brief, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.reports.gather import Part

_WHERE = {"runs_dir", "execution"}
"""Config groups that say where and by whom a run is played, which is not a difference between experiments."""


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys; empty mappings and lists stay values."""
    found: dict[str, Any] = {}
    for key, one in value.items():
        if isinstance(one, dict) and one:
            found.update(flat(one, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = one
    return found


def differences(parts: Sequence[Part]) -> list[tuple[str, str, list[int]]]:
    """Return the keys whose values differ: (key, value, numbers of the cells that have it), in the order of the config.

    A key that a cell lacks, because its model or scorer has other settings, is "not set" there.
    """
    configs = {part.number: part.config for part in parts if part.config}
    groups = dict.fromkeys(group for config in configs.values() for group in config if group not in _WHERE)
    found: list[tuple[str, str, list[int]]] = []
    for group in groups:
        own = {number: {group: config[group]} if group in config else {} for number, config in configs.items()}
        if len({msgspec.json.encode(one) for one in own.values()}) > 1:
            found += _within({number: flat(one) for number, one in own.items()})
    return found


def _within(configs: dict[int, dict[str, Any]]) -> Iterator[tuple[str, str, list[int]]]:
    """Yield the keys of a group that differ, from its flat values in each cell."""
    for key in dict.fromkeys(key for config in configs.values() for key in config):
        cells: dict[str, list[int]] = {}
        for number, config in configs.items():
            cells.setdefault(whole(config[key]) if key in config else "not set", []).append(number)
        if len(cells) > 1:
            yield from ((key, brief(value), numbers) for value, numbers in cells.items())


def ranges(numbers: Sequence[int]) -> str:
    """Write ``#1–4, #7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"#{run[0]}" if len(run) == 1 else f"#{run[0]}–{run[-1]}" for run in runs)
