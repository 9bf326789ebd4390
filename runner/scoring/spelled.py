"""Read a number in words at the end of an answer without digits: "The answer is eighteen", ``答案是十八``."""

from __future__ import annotations

import re

_UNITS = "one two three four five six seven eight nine".split()  # noqa: SIM905 - read as a sentence
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()  # noqa: SIM905
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_VALUES = {word: value for value, word in enumerate(["zero", *_UNITS, *_TEENS])}
_VALUES |= {word: 10 * value for value, word in enumerate(_TENS, start=2)}
_SCALES = {"billion": 10**9, "million": 10**6, "thousand": 10**3}

_SMALL = rf"(?:{'|'.join(_TEENS)}|(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_UNITS)}))?|{'|'.join(_UNITS)})"
_GROUP = rf"(?:(?:{'|'.join(_UNITS)}) hundred(?: (?:and )?{_SMALL})?|{_SMALL})"
_ENGLISH = rf"(?:zero|(?:{_GROUP} billion)?(?: ?{_GROUP} million)?(?: ?{_GROUP} thousand)?(?: ?(?:and )?{_GROUP})?)"
_IN_ENGLISH = re.compile(
    rf"(?:^|\b(?:is|are|equals|answer:|=)) ?(?P<sign>minus |negative )?(?P<words>{_ENGLISH})"
    r"(?: (?:dollars|euros|cents|percent))?$"
)

_DIGITS = {
    sign: value
    for value, signs in enumerate(("零〇", "一", "二两兩", "三", "四", "五", "六", "七", "八", "九"))
    for sign in signs
}
_POWERS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_IN_CHINESE = re.compile(
    rf"(?:^|[是为為は：:=])(?P<sign>[负負]?)(?P<words>[{''.join([*_DIGITS, *_POWERS, *_MYRIADS])}]+)[个個元円人岁歳]?(?:です)?$"
)


def spelled(text: str) -> int | None:
    """Return the number in words with which a text ends, alone or after "is" and the like; None without one.

    English and Chinese characters (also in Japanese). Words anywhere else, such as the "one" of "one of them", are not numbers.
    """
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    plain = " ".join(re.sub(r"[*_$\"'“”.!。！、]+", " ", last).lower().split())
    if (found := _IN_ENGLISH.search(plain)) is not None and found["words"]:
        value = _english(found["words"])
        return -value if found["sign"] else value
    found = _IN_CHINESE.search(plain.replace(" ", ""))
    if found is None or (size := _chinese(found["words"])) is None:
        return None
    return -size if found["sign"] else size


def _english(words: str) -> int:
    total = group = 0
    for word in words.replace("-", " ").split():
        if word in _SCALES:
            total, group = total + group * _SCALES[word], 0
        elif word == "hundred":
            group *= 100
        elif word != "and":
            group += _VALUES[word]
    return total + group


def _chinese(signs: str) -> int | None:
    """Add up 一千二百三十四万; digits without powers (二〇二六) are read in a row. None where the parts do not fall."""
    if all(sign in _DIGITS for sign in signs):
        return int("".join(str(_DIGITS[sign]) for sign in signs))
    total = section = digit = 0
    least = 10**5
    for sign in signs:
        if sign in _DIGITS:
            if digit:
                return None
            digit = _DIGITS[sign]
        elif sign in _POWERS:
            if _POWERS[sign] >= least:
                return None
            least = _POWERS[sign]
            section, digit = section + (digit or 1) * least, 0
        else:
            total, section, digit, least = (total + section + digit) * _MYRIADS[sign], 0, 0, 10**5
    return total + section + digit
