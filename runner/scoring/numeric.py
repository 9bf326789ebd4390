"""The numeric scorer: compares the number in an answer with that of the target."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import ConfigError, DataError
from runner.scoring.numbers import Decimal, Number, read_number
from runner.scoring.targets import Comparison, compile_pattern, short, wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST = 10**308


class Numeric(Comparison):
    r"""1.0 when the number in the answer equals the target within a tolerance, else 0.0 (also when there is no number).

    Numbers are compared exactly, as fractions. They are read in the notations of many languages (`runner.scoring.numbers`):
    signs, ``1,234,567.5``, ``1 234,5``, ``1.5e-3``, ``5×10^6``, ``3/4``, ``1 1/2``, ``1½``, ``\frac{3}{4}``, ``1.2 million``,
    ``2万``, digits of any script. A currency sign before and a percent sign after are ignored: ``$5`` is 5, ``50%`` is 50.
    A notation without a certain reading (a date, a time, a range, a root) is no number, and scores 0.0.

    Args:
        tolerance: the absolute difference allowed. Default 1e-6.
        relative: the difference allowed as a part of the target (0.01 is one percent); the wider of the two holds. Default 0.
        extract: which number of the text counts: the ``last`` (default: the number in a box or on a line ``Answer: ...``, else
            the last one) or the ``first``.
        decimal: how ``1.234`` and ``1,234`` are read: ``point`` (default) takes them for 1.234 and 1234, ``comma`` for 1234 and
            1.234. It holds for answers and targets.
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
        decimal: Decimal = "point",
        target_pattern: str | None = None,
    ) -> None:
        if tolerance < 0 or relative < 0:
            raise ConfigError(f"scoring.tolerance and scoring.relative must not be negative: {tolerance}, {relative}")
        self._tolerance = Fraction(repr(tolerance))
        self._relative = Fraction(repr(relative))
        self._first = extract == "first"
        self._decimal: Decimal = decimal
        self._target_pattern = None if target_pattern is None else compile_pattern("scoring.target_pattern", target_pattern)

    def check(self, target: Any) -> None:
        """Raise DataError if this scorer cannot use `target`."""
        for option in wanted(self.name, target):
            self._targets(option)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Compare the number in the answer; a list of targets means any of them."""
        options = [number for option in wanted(self.name, target) for number in self._targets(option)]
        found = read_number(output, first=self._first, decimal=self._decimal)
        if found is None or found.value is None:
            return 0.0
        return float(any(self._agree(found, option) for option in options))

    def reads(self, output: str, target: Any, parsed: Any) -> bool:  # noqa: ARG002 - Scorer
        """Return whether there is a number in the answer that can be read."""
        found = read_number(output, first=self._first, decimal=self._decimal)
        return found is not None and found.value is not None

    def _agree(self, found: Number, option: Number) -> bool:
        """Compare the values; the target may also be in the unit of the answer ("how many millions?"), or the other way round."""
        assert found.value is not None
        assert option.value is not None
        return (
            self._near(found.value, option.value)
            or (found.bare is not None and option.bare is None and self._near(found.bare, option.value))
            or (option.bare is not None and found.bare is None and self._near(found.value, option.bare))
        )

    def _near(self, number: Fraction, option: Fraction) -> bool:
        return abs(number - option) <= max(self._tolerance, self._relative * abs(option))

    def _targets(self, target: Any) -> list[Number]:
        """Return the number of a target; of a float its exact value, too, which may be nearer to what the answer wrote."""
        if isinstance(target, (int, float)) and not isinstance(target, bool) and abs(target) < _LARGEST:
            written = Number(Fraction(repr(target)))
            return [written] if isinstance(target, int) else [written, Number(Fraction(target))]
        text = str(target)
        if self._target_pattern is not None:
            found = self._target_pattern.search(text)
            if found is None:
                raise DataError(f"scoring.target_pattern is not found in the target {short(text)}")
            text = found[1] if found.re.groups else found[0]
        number = read_number(text, decimal=self._decimal)
        if number is None:
            raise DataError(f"there is no number in the target {short(text)}")
        if number.value is None:
            raise DataError(f"there is no number in the target {short(text)} that is read for certain; write it in digits")
        return [number]
