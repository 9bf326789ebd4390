"""Declare `sweep`: what varies, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from runner.config.schema.base import Config, Positive, Text


class Range(Config, frozen=True, kw_only=True):
    """Vary over numbers from start up to, but without, stop: ``range: [start, stop]`` or ``[start, stop, step]``, as in Hydra."""

    range: Annotated[list[int | float], Meta(min_length=2, max_length=3)]

    def __post_init__(self) -> None:
        if len(self.range) > 2 and not self.range[2]:  # noqa: PLR2004
            raise ValueError("the step of a range cannot be 0")


class Interval(Config, frozen=True, kw_only=True):
    """Vary over any number from low to high, for sweepers that search (optuna): ``interval: [low, high]``."""

    interval: Annotated[list[int | float], Meta(min_length=2, max_length=2)]


Varied: TypeAlias = list[Any] | dict[str, list[int | float]]
"""The values of a key in a sweep: a list, ``{range: [...]}`` (see `Range`) or ``{interval: [...]}`` (see `Interval`)."""


class Sweep(Config, frozen=True, kw_only=True):
    """List the cells of a sweep: every combination of `grid` and `zip`, plus `cells`, without those that `exclude` matches."""

    grid: dict[str, Varied] = {}
    zip: dict[str, Varied] = {}
    cells: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    concurrency: Positive = 4
    fail_fast: bool = False
    primary: Text | None = None
    direction: Literal["maximize", "minimize"] = "maximize"

    @property
    def varies(self) -> bool:
        """Return whether there is anything to sweep over."""
        return bool(self.grid or self.zip or self.cells)

    def __post_init__(self) -> None:
        for part in ("grid", "zip"):
            for key, given in getattr(self, part).items():
                _check_varied(f"{part}.{key}", given)
        lengths = {key: len(given) for key, given in self.zip.items() if isinstance(given, list)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} {count}" for key, count in lengths.items())
            raise ValueError(f"zip: its keys change together, so each needs the same number of values: {told}")
        if any("interval" in given for given in self.zip.values() if isinstance(given, dict)):
            raise ValueError("zip: an interval has no list of values; put it into grid")


def _check_varied(where: str, given: Varied) -> None:
    """Refuse anything but a list of values, a range or an interval, with a ValueError."""
    if isinstance(given, list):
        if not given:
            raise ValueError(f"{where}: has no values")
        return
    kinds: dict[str, type[Config]] = {"range": Range, "interval": Interval}
    kind = kinds.get(next(iter(given), ""))
    if kind is None or len(given) > 1:
        raise ValueError(f"{where}: takes a list of values, {{range: [start, stop, step]}} or {{interval: [low, high]}}")
    try:
        msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from None
