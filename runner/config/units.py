"""Read quantities that are written with a unit, such as ``cache.ttl=30d``, in the unit of their key."""

from __future__ import annotations

import re

from runner.errors import ConfigError
from runner.wording.suggest import suggest

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
GIGABYTES = {"MB": 0.001, "GB": 1, "TB": 1000, "MiB": 2**20 / 1e9, "GiB": 2**30 / 1e9, "TiB": 2**40 / 1e9}

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)")


def in_unit_of(key: str, text: str) -> float | str:
    """Return a quantity in the unit of its key: seconds for ``ttl`` and ``*_s``, gigabytes for ``cache.size`` and ``*_gb``.

    Args:
        key: a group's key, such as ``cache.ttl``.
        text: its value.

    Returns:
        `text` itself if the key has no unit, or if it is not a number with a unit.

    Raises:
        ConfigError: there is no such unit.
    """
    units = units_of(key)
    if units is None or not (found := _QUANTITY.fullmatch(text.strip())):
        return text
    number, unit = found.groups()
    if unit not in units:
        raise ConfigError(f"{key}: there is no unit '{unit}'{suggest(unit, units) or ';'} units are {', '.join(units)}")
    return float(number) * units[unit]


def units_of(key: str) -> dict[str, float] | None:
    """Return the units that the value of a group's key may have, with what each stands for; None if it has none."""
    group, _, name = key.partition(".")
    if not group or "." in name or "[" in name:
        return None
    return SECONDS if name == "ttl" or name.endswith("_s") else GIGABYTES if name.endswith("_gb") or key == "cache.size" else None
