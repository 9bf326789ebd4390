"""The numeric scorer, and how numbers are read from text."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import ConfigError, DataError
from runner.scoring.targets import wanted
from runner.scoring.text import compile_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST = 1e308
_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<!\.)\.[0-9]+"
_NUMBER = re.compile(
    rf"""
    (?<![^\W_])(?<![0-9]\.)                       # not part of a word (the 2 of x2) or of another number
    (?P<sign>[-+\N{{MINUS SIGN}}]?)(?:[$€£¥][ ]?(?P<inner>[-\N{{MINUS SIGN}}]?))?
    (?:
        (?:(?P<whole>[0-9]+)[ ])?(?P<top>[0-9]+)/(?P<bottom>0*[1-9][0-9]*)(?![0-9/]|\.[0-9])
      | (?P<decimal>{_DECIMAL})(?P<exponent>[eE][-+]?[0-9]+)?
    )
    """,
    re.VERBOSE,
)


class Numeric:
    """1.0 when the number in the answer equals the target within a tolerance, else 0.0 (also when there is no number).

    Numbers in text: signs, decimals, ``1,234,567.5``, ``1.5e-3``, fractions ``3/4`` and ``1 1/2``. A currency sign before and a
    percent sign after are ignored: ``$5`` is 5, ``50%`` is 50. A comma only groups thousands. Digits inside a word (``x2``)
    are not a number.

    Args:
        tolerance: the absolute difference allowed. Default 1e-6.
        relative: the difference allowed as a part of the target (0.01 is one percent); the wider of the two holds. Default 0.
        extract: which number of the text counts: the ``last`` (default, where reasoning ends in its result) or the ``first``.
        target_pattern: a regular expression whose first group (or whole match) in the target is read. Default None: the last
            number in the target, which reads GSM8K's ``... #### 18`` as it is.

    Raises:
        ConfigError: `target_pattern` is not a valid regular expression, or a tolerance is negative.
    """

    name = "numeric"

    def __init__(
        self,
        *,
        tolerance: float = 1e-6,
        relative: float = 0.0,
        extract: Literal["last", "first"] = "last",
        target_pattern: str | None = None,
    ) -> None:
        if tolerance < 0 or relative < 0:
            raise ConfigError(f"scoring.tolerance and scoring.relative must not be negative: {tolerance}, {relative}")
        self._tolerance = tolerance
        self._relative = relative
        self._first = extract == "first"
        self._target_pattern = None if target_pattern is None else compile_pattern("scoring.target_pattern", target_pattern)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Compare the number in the answer; a list of targets means any of them."""
        options = [self._target(option) for option in wanted(self.name, target)]
        number = read_number(output, first=self._first)
        if number is None:
            return 0.0
        return float(any(abs(number - option) <= max(self._tolerance, self._relative * abs(option)) for option in options))

    def _target(self, target: Any) -> float:
        if isinstance(target, (int, float)) and not isinstance(target, bool) and abs(target) < _LARGEST:
            return float(target)
        text = str(target)
        if self._target_pattern is not None:
            found = self._target_pattern.search(text)
            if found is None:
                raise DataError(f"scoring.target_pattern is not found in the target {_short(text)}")
            text = found[1] if found.re.groups else found[0]
        number = read_number(text, first=False)
        if number is None:
            raise DataError(f"there is no number in the target {_short(text)}")
        return number


def read_number(text: str, *, first: bool) -> float | None:
    """Return the first or the last number in `text`, or None when there is none (or it is too large for a float)."""
    found = None
    for match in _NUMBER.finditer(text):
        found = match
        if first:
            break
    if found is None:
        return None
    if found["decimal"] is not None:
        value = float(found["decimal"].replace(",", "") + (found["exponent"] or ""))
    else:
        value = float(found["whole"] or 0) + float(found["top"]) / float(found["bottom"])
    negative = found["sign"] in ("-", "\N{MINUS SIGN}") or bool(found["inner"])
    return (-value if negative else value) if math.isfinite(value) else None


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"...{text[-77:]}")  # noqa: PLR2004 - one line of a terminal
