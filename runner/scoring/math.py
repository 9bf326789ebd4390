"""The math scorer: symbolic equality of an answer and its target."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError, DataError
from runner.scoring import anchors
from runner.scoring.mathpool import Pool, Verdict, pool
from runner.scoring.normal import folded
from runner.scoring.notation import formula
from runner.scoring.numbers import only_number, read_number
from runner.scoring.targets import Comparison, short, texts, wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMULA = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<![\\$])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)", re.DOTALL)
_PRICED = re.compile(
    r"[0-9.][^\\]*(?:=|(?<!\w)(?!(?:sin|cos|tan|log|ln|exp|mod|max|min|gcd|lcm|pi)\b)[A-Za-z]{2,}\b[^\\]*)", re.DOTALL
)
"""Text between the dollar signs of two prices: ``$20 so 20/4 = $5``, ``$100-$38=$62``."""
_UNIT = re.compile(r"(?<=[0-9}!)\s.])\s*\\(?:text|mathrm|mbox|textrm)\s*\{\s*([A-Za-zµ°%/ .^-]+?)\s*\}(?:\^\{?[0-9]\}?)?\s*$")
_NOT_COMPARED = re.compile(r"[0-9]\s*:\s*[0-9]|[0-9]_\{?[0-9]|[0-9]{4}-[0-9]{2}-[0-9]{2}")
"""Notations that math-verify 0.9 reads wrongly: times (10:30 is 10), numbers to a base (101_2 is 101), dates (a difference)."""


_SHORT = 80
"""Signs of an answer that may be a formula, or words, as a whole."""


class Math(Comparison):
    r"""1.0 when the answer equals the target as mathematics, else 0.0 (also when one of them cannot be parsed).

    Two plain numbers are compared by our own reader, exactly, within 1e-6. Everything else is compared symbolically by
    math-verify 0.9 (github.com/huggingface/Math-Verify; the extra ``math``): fractions, roots, sets, intervals, polynomials,
    equations. ``x = 5`` is 5. A target of words (``\text{even}``) is compared as text. Units are compared as text where both
    sides have one, and ignored where only one has. Times, dates and numbers to a base are compared as text.

    The answer is what the last ``\boxed{}`` holds, else an ``<answer>`` tag, else a line ``Answer: ...``, else the last formula
    of the text, else its last number.

    Args:
        limit_s: seconds for one comparison. What takes longer counts as not parsed. Default 10.

    Raises:
        ConfigError: math-verify is not installed.
    """

    name = "math"
    blocks = True
    """A comparison takes 5 to 500 ms, so it is not made in the event loop."""

    def __init__(self, *, limit_s: float = 10.0) -> None:
        if limit_s <= 0:
            raise ConfigError(f"scoring.limit_s is {limit_s}: give more than 0")
        self._pool: Pool = pool(limit_s)

    def check(self, target: Any) -> None:
        """Raise DataError if `target` is missing or cannot be parsed."""
        for option in self._options(target):
            if _number(option) is None and not _is_words(option) and not _NOT_COMPARED.search(option):
                verdict = self._pool.compare(formula(_without_unit(option)[0]), None)
                if not verdict.gold:
                    raise DataError(f"the target {short(option)} cannot be parsed as mathematics")

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Compare with the target; a list of targets means any of them."""
        answer = answer_in(output)
        options = self._options(target)
        return float(answer is not None and any(self._verdict(option, answer).equal for option in options))

    def reads(self, output: str, target: Any, parsed: Any) -> bool:  # noqa: ARG002 - Scorer
        """Return whether there was anything in the answer that could be compared."""
        answer = answer_in(output)
        return answer is not None and any(self._verdict(option, answer).answer for option in self._options(target))

    def _options(self, target: Any) -> list[str]:
        return [_target(texts(option)[0]) for option in wanted(self.name, target)]

    def _verdict(self, gold: str, answer: str) -> Verdict:
        mine, wanted_number = _number(answer), _number(gold)
        if mine is not None and wanted_number is not None:
            return Verdict(
                gold=True, answer=True, equal=abs(mine - wanted_number) <= Fraction(1, 10**6) and _units_agree(gold, answer)
            )
        if _plain(gold) == _plain(answer):
            return Verdict(gold=True, answer=True, equal=True)
        if _is_words(gold) or _NOT_COMPARED.search(gold) or _NOT_COMPARED.search(answer):
            return Verdict(gold=True, answer=True, equal=False)
        (gold_part, _), (answer_part, _) = _without_unit(gold), _without_unit(answer)
        verdict = self._pool.compare(formula(gold_part), formula(answer_part))
        if not verdict.gold and not verdict.timed_out:
            raise DataError(f"the target {short(gold)} cannot be parsed as mathematics")
        return verdict if _units_agree(gold, answer) else verdict._replace(equal=False)


def answer_in(text: str) -> str | None:
    """Return the part of an answer that is its result, in LaTeX or as a number; None if there is neither."""
    for found in (anchors.boxed(text), anchors.tagged(text), *anchors.lines(text)):
        if found is not None:
            formulas = _formulas(found)
            return formulas[-1] if len(formulas) == 1 else _number_in_prose(found.strip().rstrip(".。").strip("*_ "))
    if formulas := _formulas(text):
        return formulas[-1]
    number = read_number(text)
    if number is not None and number.value is not None:
        return str(number.value)
    return text.strip() if text.strip() and len(text) <= _SHORT else None


def _number_in_prose(text: str) -> str:
    """Return the number of ``18 apples``; any other text as it is."""
    number = read_number(text) if re.search(r"(?<!\\)\b[^\W\d_]{3,}", text) and "\\" not in text else None
    return text if number is None or number.value is None else str(number.value)


def _formulas(text: str) -> list[str]:
    return [next(filter(None, found)).strip() for found in _FORMULA.findall(text) if not _PRICED.fullmatch(found[3])]


def _target(text: str) -> str:
    """Return the formula of a target: of a worked solution its boxed result."""
    found = anchors.boxed(text)
    if found is None and "####" in text:
        found = next(anchors.lines(text), None)
    if found is None:
        formulas = _formulas(text)
        found = formulas[0] if len(formulas) == 1 else text
    return found.strip()


def _number(text: str) -> Fraction | None:
    """Return the value of a text that is nothing but a number, with or without a unit."""
    return only_number(_without_unit(text)[0])


def _without_unit(text: str) -> tuple[str, str]:
    unit = _UNIT.search(text)
    return (text, "") if unit is None or unit.start() == 0 else (text[: unit.start()], folded(unit[1]))


def _units_agree(gold: str, answer: str) -> bool:
    one, other = _without_unit(gold)[1], _without_unit(answer)[1]
    return not one or not other or one.rstrip("s.") == other.rstrip("s.")


_MARKS = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}|\\[,;:! ]|\\left|\\right|[\s${}.]")


def _plain(text: str) -> str:
    return folded(_MARKS.sub(r"\1", text)).replace(" ", "")


def _is_words(text: str) -> bool:
    r"""Return whether a target is words, such as ``\text{Evelyn}`` or ``east``."""
    return (
        re.fullmatch(r"\$?\s*(?:\\(?:text|mathrm|mbox|textbf)\s*\{[^{}0-9]*\}|[^\W\d_]{2,}(?:[ '-][^\W\d_]+)*)\s*\$?", text)
        is not None
    )
