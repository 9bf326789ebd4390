"""Read numbers out of text, exactly. Where a notation has no certain reading, there is no number."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from runner.scoring import anchors
from runner.scoring.notation import CITATION, LETTERS, OPAQUE, plain
from runner.scoring.scales import AMBIGUOUS_SIGN, EASTERN, FACTORS, LETTERS_AFTER, UNITS_AFTER_THOUSAND
from runner.scoring.spelled import spelled

if TYPE_CHECKING:
    from collections.abc import Iterator

Decimal = Literal["point", "comma"]
"""How ``1.234`` and ``1,234`` are read, which do not tell: as 1.234 and 1234 (point), or as 1234 and 1.234 (comma)."""


class Number(NamedTuple):
    """A number in text.

    Attributes:
        value: its value; None: it cannot be read for certain.
        bare: its value without the word or sign that multiplies it, which the question may have asked for ("how many millions?");
            None without such a word.
    """

    value: Fraction | None
    bare: Fraction | None = None


UNREAD = Number(None)

_MOST_DIGITS = 308
"""Digits and exponents beyond this, as of a float, are a model caught in a loop."""
_LEAST_EXPONENT = 324
"""The smallest float is 5e-324."""
_MOST_BESIDE = 40
"""Letters and signs that may stand beside the number on a line that announces it."""

_CURRENCY = r"(?:[A-Z]{1,3})?[$€£¥₹₩₽₺₫฿₱₦₪]|USD|EUR|GBP|INR|CHF|CNY|RMB|JPY|BRL|Rs\.?"
_EASTERN = "".join(EASTERN)
_AFTER = "".join(LETTERS_AFTER)
_SCALE = "|".join(sorted(map(re.escape, FACTORS), key=len, reverse=True))
_UNIT_WITH_POWER = "(?:[kcdmnµμ]?m|ft|in|yd|mi)[23]"


def read_number(text: str, *, first: bool = False, decimal: Decimal = "point") -> Number | None:
    r"""Return the number that is the result of `text`; None without any.

    It is the number in the last ``\boxed{...}``, in the last ``<answer>`` tag, or on the last line that announces the answer and
    holds little else (``Answer: 18``, ``#### 18``); otherwise the last number of the text. A reference such as ``[1]`` right
    after a word is not a number. A text without digits may end with a number in words.

    Args:
        text: an answer or a target.
        first: return the first number of the text, wherever it stands.
        decimal: how ``1.234`` and ``1,234`` are read.
    """
    if not first:
        if (box := anchors.boxed(text)) is not None:
            return _only(_result(box), decimal) or UNREAD
        if (tag := anchors.tagged(text)) is not None and (found := _only(_result(tag), decimal)):
            return found
        for line in anchors.lines(text):
            if found := _announced(line, decimal):
                return found
    found = _in_lines(CITATION.sub("", text) if "[" in text or "【" in text else text, first, decimal)
    if found is None and "[" in text:
        found = _in_lines(text, first, decimal)  # the brackets are the answer's own
    if found is None and (in_words := spelled(text)) is not None:
        return Number(Fraction(in_words))
    return found


def numbers(text: str, decimal: Decimal = "point") -> Iterator[Number]:
    """Yield each number of `text` in order, those that cannot be read among them.

    Not read are dates, times, ranges, ratios, versions, sums that are not carried out, bounds (``±5``, ``≤5``), numbers to
    another base, powers of variables, anything joined to a root or a function, and numbers of more than 308 digits. Digits
    inside a word (``x2``, ``GPT-4``) are not numbers.
    """
    text = plain(text)
    for found in _pattern(decimal).finditer(text):
        if found["unread"] is not None or (found["name"] is None and _is_joined(text, found)):
            yield UNREAD
        elif found["name"] is None:
            yield _value(found, decimal)


def _in_lines(text: str, first: bool, decimal: Decimal) -> Number | None:
    """Return the first number of the first line that has one, or the last number of the last one."""
    lines = text.splitlines()
    for line in lines if first else reversed(lines):
        if found := list(numbers(line, decimal)):
            return found[0 if first else -1]
    return None


def _only(text: str, decimal: Decimal) -> Number | None:
    """Return the number of a text that holds one; `UNREAD` if there are several."""
    found = list(numbers(text, decimal))
    return None if not found else found[0] if len(found) == 1 else UNREAD


def _result(text: str) -> str:
    r"""Return the right-hand side of ``x = 5`` or ``\pi \approx 3.14``."""
    return re.split(r"=|≈|\\approx\b|\\simeq\b", text)[-1]


def _announced(line: str, decimal: Decimal) -> Number | None:
    """Return the number of a line that holds one number and little else."""
    line = CITATION.sub("", line)
    found = list(numbers(line, decimal))
    beside = sum(not (character.isspace() or character.isdigit()) for character in line)
    return found[0] if len(found) == 1 and beside <= _MOST_BESIDE else None


@cache
def _pattern(decimal: Decimal) -> re.Pattern[str]:
    """Compile the expression that takes a text apart: numbers that can be read, names with digits, and all other digits."""
    number, part = _digits(decimal)
    power = r"[ ]?(?:\^|\*\*)[ ]?\{?[ ]?(?P<NAME>[-+]?[0-9]+)(?![0-9.,]*[0-9])[ ]?\}?"
    ten, power = power.replace("NAME", "ten"), power.replace("NAME", "power")
    eastern = rf"[0-9][0-9.,]*[ ]?[{_EASTERN}]+"
    readable = (
        rf"(?<![{LETTERS}0-9])(?P<sign>[-+]?)(?P<currency>(?:{_CURRENCY})[ ]?(?P<inner>[-+]?))?(?:"
        rf"(?:(?P<whole>[0-9]+)[ ])?(?P<top>{part})[ ]?/[ ]?(?P<bottom>{part})(?!/|\.[0-9])"
        rf"|(?P<eastern>(?:{eastern}[ ]?)*{eastern}(?:[0-9]+)?)(?!(?<=千)[{UNITS_AFTER_THOUSAND}])"
        rf"|(?P<number>{number})(?:[eE](?P<e>[-+]?[0-9]+)|[ ]?[×x*][ ]?10{ten}|{power})?"
        rf"(?:(?:[ -]?(?P<scale>(?i:{_SCALE}))\.?|(?P<letter>[{_AFTER}]))(?![{LETTERS}]))?"
        r")"
    )
    joined = (
        rf"[0-9]|[.,:/'_^*×÷–~-][-+]?(?:{_CURRENCY})?\{{?\.?[0-9]|[ ]?[±^]|_\{{"
        rf"|(?!{_UNIT_WITH_POWER}(?![{LETTERS}0-9]))[{LETTERS}]+[0-9]"
        rf"|[ ]?[{AMBIGUOUS_SIGN}万萬億亿만억]|[千百천백](?![{UNITS_AFTER_THOUSAND}度分])"
        r"|，[0-9]{3}(?![0-9])"
    )
    name = rf"(?<![{LETTERS}0-9])[{LETTERS}]+(?:[-_]\{{?)?[0-9][{LETTERS}0-9]*(?:[-._][{LETTERS}0-9]+)*"
    unread = rf"[0-9](?:[0-9{LETTERS}]|，(?=[0-9]{{3}}(?![0-9]))|[.,:/'_^*×÷–~±-]+[{{$€£¥+-]?(?=[0-9]))*"
    starts = r"(?=[-+.0-9$€£¥₹₩₽₺₫฿₱₦₪A-Z])"  # a quick no for most places
    return re.compile(rf"{starts}{readable}(?!{joined})|(?P<name>{name})|(?P<unread>{unread})")


def _digits(decimal: Decimal) -> tuple[str, str]:
    """Return the expressions for digits with separators, and for those in a fraction."""
    point, group = (r"\.", ",") if decimal == "point" else (",", r"\.")
    first = "[1-9][0-9]{0,2}"
    spaced = rf"(?<![0-9][ ]){first}(?:[ ][0-9]{{3}})+(?![ ]?[0-9])"
    grouped, quoted, underscored = (rf"{first}(?:{sign}[0-9]{{3}})+" for sign in (group, "'", "_"))
    indian = rf"[1-9][0-9]?(?:{group}[0-9]{{2}})+{group}[0-9]{{3}}"
    whole = rf"(?:{spaced}|{grouped}|{indian}|{quoted}|{underscored}|[0-9]+)"
    other_way = rf"(?:{spaced}|{first}(?:{point}[0-9]{{3}})+|{quoted}|[0-9]+){group}[0-9]+|{first}(?:{point}[0-9]{{3}}){{2,}}"
    number = rf"(?:{other_way}|{whole}(?:{point}[0-9]+)?|[0-9]+\.[0-9]+|(?<!\.)\.[0-9]+)"
    return number, rf"(?:{grouped}|[0-9]+)(?:\.[0-9]+)?"


_JOINED_BEFORE = re.compile(rf"(?:{OPAQUE}[\s{{}}()]*[-+×÷*/^]?[\s{{}}()]*|[±≤≥≠^][{{\s]*|(?<!<)<)$")
_JOINED_AFTER = re.compile(rf"\.?{OPAQUE}|[\s}})]*[-+×÷*/^]?[\s({{]*{OPAQUE}")


def _is_joined(text: str, found: re.Match[str]) -> bool:
    """Return whether a number is part of a formula that is not read, or a bound."""
    start, end = found.span()
    before = _JOINED_BEFORE.search(text, max(0, start - 8), start)
    in_brackets = before is not None and before[0] == "<" and text[end : end + 1] == ">"
    return (before is not None and not in_brackets) or _JOINED_AFTER.match(text, end) is not None


def _value(found: re.Match[str], decimal: Decimal) -> Number:
    if max(map(len, re.findall("[0-9]+", found[0]))) > _MOST_DIGITS:
        return UNREAD
    if found["top"] is not None:
        top, bottom = (_decimal(found[part], decimal) for part in ("top", "bottom"))
        size = Number(Fraction(found["whole"] or 0) + top / bottom) if bottom else UNREAD
    elif found["eastern"] is not None:
        size = _eastern(found["eastern"], decimal)
    else:
        size = _scaled(_with_exponent(found, decimal), found)
    if "-" not in (found["sign"], found["inner"]):
        return size
    return Number(*(None if part is None else -part for part in size))


def _with_exponent(found: re.Match[str], decimal: Decimal) -> Fraction | None:
    size = _decimal(found["number"], decimal)
    name = next((name for name in ("e", "ten", "power") if found[name] is not None), None)
    if name is None:
        return size
    exponent = int(found[name])
    digits = abs(exponent) * len(found["number"]) if name == "power" else exponent
    if not -_LEAST_EXPONENT <= digits <= _MOST_DIGITS or (name == "power" and not size and exponent <= 0):
        return None
    return size**exponent if name == "power" else size * Fraction(10) ** exponent


def _scaled(size: Fraction | None, found: re.Match[str]) -> Number:
    letter = found["letter"]
    if found["scale"] is not None:
        factor = FACTORS[found["scale"].lower()]
    elif letter is not None and (found["currency"] or letter == "k"):
        factor = LETTERS_AFTER[letter]
    else:
        return Number(size)
    return UNREAD if factor is None or size is None else Number(size * factor, size)


def _decimal(text: str, decimal: Decimal) -> Fraction:
    """Read digits with separators. The last separator is the decimal one if it occurs once and groups no thousands."""
    text = re.sub("[ '_]", "", text)
    point, group = (".", ",") if decimal == "point" else (",", ".")
    if point in text and group in text:
        sign = max(point, group, key=text.rfind)
    elif group in text:
        thousands = re.fullmatch(rf"[1-9][0-9]{{0,2}}(?:{re.escape(group)}[0-9]{{2,3}})*{re.escape(group)}[0-9]{{3}}", text)
        sign = point if thousands else group
    else:
        sign = point if text.count(point) == 1 else group
    return Fraction(text.replace(group if sign == point else point, "").replace(sign, "."))


def _eastern(text: str, decimal: Decimal) -> Number:
    """Add up ``1億2000万``. Not read where the parts do not fall, or one digit follows: 3万5 may be 30,005 or 35,000."""
    total, least = Fraction(0), None
    parts = re.findall(rf"([0-9][0-9.,]*)\s?([{_EASTERN}]+)", text)
    for digits, units in parts:
        if not re.fullmatch(r"[0-9]+(?:[.,][0-9]+)*", digits):
            return UNREAD
        factor = 1
        for unit in units:
            factor *= EASTERN[unit]
        value = _decimal(digits, decimal) * factor
        if least is not None and value >= least:
            return UNREAD
        total, least = total + value, factor
    if tail := re.search(rf"(?<=[{_EASTERN}])[0-9]+$", text):
        return Number(total + int(tail[0])) if len(tail[0]) > 1 and int(tail[0]) < (least or 0) else UNREAD
    return Number(total, _decimal(parts[0][0], decimal) if len(parts) == 1 else None)


_DRESSING = re.compile(r"[\s$%{}().*_\\]*")


def only_number(text: str, decimal: Decimal = "point") -> Fraction | None:
    """Return the value of a text that is one number and nothing else but signs around it; None otherwise.

    ``12,5`` is no such text, since two numbers may be meant.
    """
    text = plain(text)
    found = [*_pattern(decimal).finditer(text)]
    if len(found) != 1 or found[0]["name"] is not None or found[0]["unread"] is not None or _is_joined(text, found[0]):
        return None
    start, end = found[0].span()
    if re.search(r",(?![0-9]{3}(?![0-9]))", found[0][0]):
        return None
    around = _DRESSING.fullmatch(text[:start]) and _DRESSING.fullmatch(text[end:])
    return _value(found[0], decimal).value if around else None
