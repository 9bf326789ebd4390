"""Count the values of a range in decimals, as it was written. Hydra counts in binary floats."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

Number = int | float

MOST = 100_000
"""The most values of one range."""


def values_of(key: str, written: Any) -> list[Number]:
    """Return the values of Hydra's ``range(start, stop, step)``: whole numbers if all three are, else decimals, without the end.

    Args:
        key: the key that varies, for messages.
        written: Hydra's `RangeSweep`. ``range(0.7,1,0.1)`` has the values 0.7, 0.8 and 0.9.

    Raises:
        ConfigError: it has no values, too many, or no end.
    """
    first, end, step = map(_decimal, (written.start, written.stop, written.step))
    if not (first.is_finite() and end.is_finite() and step.is_finite() and step):
        raise ConfigError(f"{key}: a range needs a start, an end and a step that are finite, and a step other than 0")
    steps, rest = divmod(end - first, step) if abs(end - first) < abs(step) * MOST else (Decimal(MOST), Decimal(1))
    count = int(steps) + bool(rest) if (end - first) / step > 0 else 0
    if count > MOST:
        raise ConfigError(f"{key}: the range has more than {MOST:,} values")
    whole = all(isinstance(number, int) for number in (written.start, written.stop, written.step))
    found = [int(value) if whole else float(value) for value in (first + step * index for index in range(count))]
    if written.shuffle:
        random.shuffle(found)
    return found


def for_search(key: str, written: Any, *, discrete: bool) -> str:
    """Return a range, in Hydra's grammar, for a sweeper that searches, and that takes the end of a range as one of its values.

    Args:
        key: the key that varies, for messages.
        written: Hydra's `RangeSweep`.
        discrete: list the values. A sweeper that tries each of them may count them wrong.

    Raises:
        ConfigError: as `values_of` does.
    """
    values = values_of(key, written)
    if not values:
        raise ConfigError(f"{key}: has no values")
    if discrete or written.shuffle or len(values) == 1:
        return f"choice({','.join(map(repr, values))})"
    step = abs(_decimal(values[1]) - _decimal(values[0]))
    return f"range({min(values)!r},{max(values)!r},{int(step) if isinstance(values[0], int) else float(step)!r})"


def nearest(value: str, values: Sequence[Number]) -> Number:
    """Return the value that is meant by a text such as ``0.7999999999999999``, which a sweeper has computed in binary floats."""
    number = float(value)
    return min(values, key=lambda one: abs(one - number))


def _decimal(number: Number) -> Decimal:
    """Return a number as it was written: to 15 digits, which are those that a binary float keeps."""
    return Decimal(number) if isinstance(number, int) else Decimal(f"{number:.15g}")
