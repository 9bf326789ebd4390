"""The differences between the configs of a sweep's cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.reports.text import brief, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    configs = {part.number: flat(part.config) for part in parts if part.config}
    keys = list(dict.fromkeys(key for config in configs.values() for key in config if key.partition(".")[0] not in _WHERE))
    found = []
    for key in keys:
        cells: dict[str, list[int]] = {}
        for number, config in configs.items():
            cells.setdefault(whole(config[key]) if key in config else "not set", []).append(number)
        if len(cells) > 1:
            found += [(key, brief(value), numbers) for value, numbers in cells.items()]
    return found


def ranges(numbers: Sequence[int]) -> str:
    """Write ``#1–4, #7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"#{run[0]}" if len(run) == 1 else f"#{run[0]}–{run[-1]}" for run in runs)
