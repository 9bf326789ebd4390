"""Scales and ticks: the place of a value on an axis, and the values written along it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from runner.reports.text import brief, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOG_FROM = 30.0
"""Ratio of the largest to the smallest value from which an axis may be logarithmic."""

_FEW = 9
"""Up to this many values, the ticks are the values themselves."""


class Axis(msgspec.Struct, frozen=True):
    """One axis, from 0 to 1 along its length.

    Attributes:
        ticks: values and their labels.
        log: equal steps are equal ratios.
        names: the values in full, by place; None for a scale.
    """

    low: float
    high: float
    ticks: list[tuple[float, str]]
    log: bool = False
    names: list[str] | None = None

    def at(self, value: Any) -> float:
        """Return the place of `value`, a number or one of the categories."""
        if self.names is not None:
            value = self.names.index(whole(value))
        elif self.log:
            return _share(math.log(value), math.log(self.low), math.log(self.high))
        return _share(value, self.low, self.high)


def axis_of(values: Iterable[Any]) -> Axis:
    """Return the axis of a config key: a scale if all its values are numbers, else one place per value.

    Numbers that span several orders of magnitude stand on a logarithmic scale. If some of these are zero or negative, each number
    has a place of its own, in order.
    """
    distinct = list({whole(value): value for value in values}.values())
    if not distinct or not all(_is_number(value) for value in distinct):
        return categories([whole(value) for value in distinct])
    numbers = sorted(float(value) for value in distinct)
    positive = [number for number in numbers if number > 0]
    spread = _crowds(positive)
    if spread and len(positive) < len(numbers):
        return categories([whole(value) for value in sorted(distinct)])
    ticks = numbers if len(numbers) <= _FEW else None
    return log_scale(numbers, ticks) if spread else scale(numbers, ticks)


def categories(names: Sequence[str]) -> Axis:
    """Return an axis with one place per name, in their order."""
    return Axis(-0.5, max(0.5, len(names) - 0.5), [(index, brief(name)) for index, name in enumerate(names)], names=list(names))


def scale(numbers: Sequence[float], ticks: Sequence[float] | None = None, *, bounds: tuple[float, float] | None = None) -> Axis:
    """Return a linear axis around `numbers`, with round ticks unless `ticks` are given."""
    low, high = bounds or _padded(min(numbers), max(numbers))
    written = [tick for tick in ticks if low <= tick <= high] if ticks else rounds(low, high)
    return Axis(low, high, [(tick, figure(tick)) for tick in apart(written, low, high)])


def log_scale(numbers: Sequence[float], ticks: Sequence[float] | None = None) -> Axis:
    """Return a logarithmic axis around `numbers`, all positive; its ticks are powers of ten unless `ticks` are given."""
    room = (max(numbers) / min(numbers)) ** 0.05 if max(numbers) > min(numbers) else 2.0
    low, high = min(numbers) / room, max(numbers) * room
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)  # noqa: PLR2004
    powers = [step * 10.0**decade for decade in decades for step in steps]
    written = [tick for tick in (ticks or powers) if low <= tick <= high]
    kept = apart([math.log(tick) for tick in written], math.log(low), math.log(high))
    return Axis(low, high, [(tick, figure(tick)) for tick in written if math.log(tick) in kept], log=True)


def rounds(low: float, high: float, about: int = 6) -> list[float]:
    """Return round values between `low` and `high`: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def apart(ticks: Sequence[float], low: float, high: float, least: float = 0.07) -> list[float]:
    """Return the ticks that do not overlap the one before; the first and the last are kept."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or (tick - kept[-1]) / (high - low) >= least:
            kept.append(tick)
        elif tick == ticks[-1] and len(kept) > 1:
            kept[-1] = tick
    return kept


def figure(number: float) -> str:
    """Write a tick as briefly as possible."""
    if number and (abs(number) >= 1e6 or abs(number) < 1e-4):  # noqa: PLR2004
        return f"{number:.3g}".replace("e-0", "e-").replace("e+0", "e")
    return f"{number:,.6g}"


def _crowds(positive: Sequence[float]) -> bool:
    """Return whether most of these sorted values would crowd at the low end of a linear scale."""
    if len(positive) < 3:  # noqa: PLR2004 - two points make no scale
        return False
    return positive[-1] / positive[0] >= LOG_FROM and positive[len(positive) // 2] <= positive[-1] / 4


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.05 or abs(low) * 0.1 or 0.5
    return low - room, high + room


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
