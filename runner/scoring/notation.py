"""Rewrite numbers and formulas as models write them (Unicode, LaTeX, HTML) in plain ASCII notation."""

from __future__ import annotations

import html
import re
import unicodedata

LETTERS = "A-Za-zÀ-ÖØ-öø-ɏͰ-ϿЀ-ԯ"
"""Letters of scripts that put spaces between words, as a character class. Digits that touch one belong to a word: ``x2``."""

OPAQUE = "\N{DOUBLE QUESTION MARK}"
"""Stands for a part of a formula whose value is not read, such as a root. A number that is joined to it is not read either."""

CITATION = re.compile(r"""(?<=[A-Za-z0-9.,;!?)\]%"”。])\[[0-9]{1,3}(?:[,–-] ?[0-9]{1,3})*\]|【[^】]{1,80}】""")
"""A reference right after what it supports, as models with web search (``[1]``) and with files (``【4:0†source】``) write it."""

_INVISIBLE = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_WIDE_GROUP = re.compile(r"(?<=[０-９])，(?=[０-９]{3}(?![０-９]))")
_DIGIT = re.compile(r"(?![0-9])\d")
_VULGAR = re.compile(r"([0-9] ?)?([¼-¾⅐-⅞])")
_RAISED, _LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "₀₁₂₃₄₅₆₇₈₉"
_RAISED_FRACTION = re.compile(rf"([{_RAISED}]+)⁄([{_LOWERED}]+)")
_EXPONENT = re.compile(rf"(?<=[0-9)}}])[{_RAISED}]+")
_INDEX = re.compile(rf"(?<=[0-9])[{_LOWERED}]+")
_SMALL = str.maketrans(_RAISED + _LOWERED, "0123456789+-0123456789")
_NO_SMALL = str.maketrans("", "", _RAISED + _LOWERED)

_SIGNS: dict[int, str] = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if chr(code) != "，"}
_SIGNS |= dict.fromkeys(
    map(ord, "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"), " "
)
_SIGNS |= dict.fromkeys(map(ord, "\N{MINUS SIGN}\N{SMALL HYPHEN-MINUS}\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{FIGURE DASH}"), "-")
_SIGNS |= dict.fromkeys(map(ord, "·⋅∙∗✕✖"), "×")
_SIGNS |= dict.fromkeys(map(ord, "’‘ʼ′"), "'")
_SIGNS |= dict.fromkeys(map(ord, "√∛∜∞"), OPAQUE)
_SIGNS |= {ord("٫"): ".", ord("٬"): ",", ord("،"): ", ", ord("٪"): "%", ord("∕"): "/", ord("⩽"): "≤", ord("⩾"): "≥"}
_DASH_SIGN = re.compile(rf"(?<![{LETTERS}0-9)\]%])–(?=[0-9.$€£¥])")
_PI = re.compile("(?<![Ͱ-Ͽ])π(?![Ͱ-Ͽ])")

_PARTS = re.compile(r"(?<![0-9])(?:([0-9]{1,12})\s?(?:又|と|과|와)\s?)?([0-9]{1,12})\s?(?:分之|分の|분의)\s?([0-9]+)")
_DATE = re.compile(r"([0-9]{2,4})\s?[年년]\s?([0-9]{1,2})\s?[月월](?:\s?([0-9]{1,2})\s?[日号號일]?)?")
_CLOCK = re.compile(r"([0-9]{1,2})\s?[点點时時시]\s?([0-9]{1,2})\s?[分분]")

_SPACED_SIGN = re.compile(r"([=≈({$]\s?)-\s+(?=[0-9.])")
_SPACED_GROUP = re.compile(r"(?<=[0-9]), (?=000(?![0-9]))")
_UNIT_POWER = re.compile(
    r"(?<=[0-9])(\s{0,3}(?:[kcdmnµμ]?m|ft|in|yd|mi|inch(?:es)?|feet|units?|met(?:er|re)s?|miles?|yards?))\s?\^\s?\{?[23]\}?"
)
_RAISED_HTML = re.compile(r"(?<=[0-9])\s?<sup>\s*([-+−]?[0-9]+)\s*</sup>", re.IGNORECASE)


def plain(text: str) -> str:
    r"""Rewrite `text` so that each number in it stands in ASCII, with its own sign, separators and exponent.

    Digits of every script become ASCII digits; ``\frac{3}{4}``, ``¾`` and ``4分之3`` become ``3/4``; ``10⁶`` and
    ``10<sup>6</sup>`` become ``10^{6}``; typographic minus signs become ``-``, all spaces the plain one. What has no value by
    itself (a root, a function, an unknown command) becomes `OPAQUE`. Prose is left as it is.
    """
    if "&" in text or "<" in text:
        text = _RAISED_HTML.sub(r"^{\1}", html.unescape(text))
    if not text.isascii():
        text = _without_unicode(text)
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    text = _SPACED_GROUP.sub(",", _SPACED_SIGN.sub(r"\1-", text))
    return _UNIT_POWER.sub(r"\1", text) if "^" in text else text


def _without_unicode(text: str) -> str:
    text = _WIDE_GROUP.sub(",", _INVISIBLE.sub("", text)).translate(_SIGNS)
    text = _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text)
    text = _VULGAR.sub(_vulgar, text)
    text = _RAISED_FRACTION.sub(lambda found: f"{found[1]}/{found[2]}".translate(_SMALL), text)
    text = _EXPONENT.sub(lambda found: "^{" + found[0].translate(_SMALL) + "}", text)
    text = _INDEX.sub(lambda found: "_{" + found[0].translate(_SMALL) + "}", text).translate(_NO_SMALL)
    text = _PI.sub(OPAQUE, _DASH_SIGN.sub("-", text.replace("⁄", "/")))
    text = _PARTS.sub(lambda found: f"{found[1]} {found[3]}/{found[2]}" if found[1] else f"{found[3]}/{found[2]}", text)
    text = _DATE.sub(lambda found: "-".join(filter(None, found.groups())), text)
    return _CLOCK.sub(r"\1:\2", text)


def _vulgar(found: re.Match[str]) -> str:
    """Write ``1½`` as ``1 1/2``."""
    return (f"{found[1].strip()} " if found[1] else "") + unicodedata.normalize("NFKC", found[2]).replace("⁄", "/")


# -- LaTeX

_NUMBER = re.compile(r"\s*(-?)\s*((?:[0-9]+(?:,[0-9]{3})*|)(?:\.[0-9]+)?)\s*")
_FRACTION = re.compile(r"(?:([0-9])\s*)?\\[dtc]?frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))")
_STYLED = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|sc|normal)?|math(?:rm|bf|it|sf|tt|bb|cal|ord)|[mh]box|operatorname|boldsymbol|bm|emph|underline"
    r"|boxed|fbox|ensuremath)\*?\s*\{([^{}]*)\}"
)
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?((?:\s*\[[^\]\n]*\])?(?:\s*\{[^{}]*\})*)")
_LETTER_POWER = re.compile(r"[A-Za-z)]\s?\^\s?(?:\{[^{}]*\}|[0-9A-Za-z])")
_OPAQUE_GROUP = re.compile(rf"\{{[^{{}}]*{OPAQUE}[^{{}}]*\}}")
_DEGREE = re.compile(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree")
_SPACING = re.compile(r"\\[,;:> ]|~")
_LITERAL = re.compile(r"\\([%$#&_{}])")

_MEANING = {"times": "×", "cdot": "×", "ast": "×", "div": "÷", "pm": "±", "mp": "±", "ne": "≠", "neq": "≠", "lt": "<", "gt": ">"}
_MEANING |= dict.fromkeys(("le", "leq", "leqslant"), "≤") | dict.fromkeys(("ge", "geq", "geqslant"), "≥")
_MEANING |= dict.fromkeys(("approx", "simeq", "sim", "cong", "equiv", "doteq"), " ≈ ")
_MEANING |= dict.fromkeys(("left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "displaystyle", "textstyle"), "")
_MEANING |= dict.fromkeys(
    (
        "quad", "qquad", "space", "enspace", "thinspace", "to", "rightarrow", "Rightarrow", "longrightarrow", "implies", "iff",
        "therefore", "because", "ldots", "dots", "dotsc", "hfill", "newline", "par", "item", "noindent", "large", "Large",
        "small", "normalsize", "bf", "it", "rm", "and", "or", "n", "r", "t",
    ),
    " ",
)  # fmt: skip
"""Commands and what they mean here; every other one is `OPAQUE`, with its arguments."""
_DROPPED = {"begin", "end", "label", "tag", "hspace", "vspace", "color", "phantom", "hphantom", "vphantom"}
"""Commands whose arguments are no part of the text."""


def _without_latex(text: str) -> str:
    text = text.replace("\\\\", "\n").replace("{,}", ",").replace("{.}", ".").replace("{\\,}", " ").replace("\\!", "")
    text = _LITERAL.sub(r"\1", _SPACING.sub(" ", _DEGREE.sub("", text)))
    text = re.sub(r"\\[()\[\]]", " ", text)
    for _ in range(8):  # inner groups first; deeper ones stay opaque
        before = text
        text = _FRACTION.sub(_fraction, _STYLED.sub(r"\1", text))
        text = _COMMAND.sub(_command, text)
        text = _OPAQUE_GROUP.sub("{" + OPAQUE + "}", _opaque_powers(text))
        if text == before:
            break
    return text


def _opaque_powers(text: str) -> str:
    """Make ``x^{2}`` opaque inside a formula's group, where it would hide an argument."""
    if "^" not in text or "\\" not in text:
        return text
    return _LETTER_POWER.sub(OPAQUE, _UNIT_POWER.sub(r"\1", text))


def _fraction(found: re.Match[str]) -> str:
    top, bottom = (_NUMBER.fullmatch(found[one] if found[one] is not None else found[other]) for one, other in ((2, 3), (4, 5)))
    if top is None or bottom is None or not top[2] or not bottom[2] or (top[1] and found[1]):
        return (found[1] or "") + OPAQUE
    sign = "-" if bool(top[1]) != bool(bottom[1]) else ""
    return (f"{found[1]} " if found[1] else "") + f"{sign}{top[2]}/{bottom[2]}"


def _command(found: re.Match[str]) -> str:
    name, arguments = found.groups()
    if name.endswith("frac") or _STYLED.match(found[0]):
        return found[0]  # its turn comes once its arguments are plain
    if name in _DROPPED:
        return " "
    if name in _MEANING:
        return _MEANING[name] + arguments
    return found[0] if _opens_group(found) else OPAQUE


def _opens_group(found: re.Match[str]) -> bool:
    """Return whether an argument with inner groups follows, which must become plain first."""
    return found.string[found.end() : found.end() + 1] == "{"


# -- formulas for math-verify

_THIN_GROUP = re.compile(
    r"(?<![0-9.])([0-9]{1,3})((?:(?:\\[,;: !]|~|\{,\}|\{\\,\}|,\\!|[ \u00a0\u2009\u202f])[0-9]{3})+)(?![0-9])"
)
_E_NOTATION = re.compile(r"(?<![A-Za-z0-9.])([0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]+)(?![0-9A-Za-z.])")
_BESIDE_CJK = re.compile(
    "(?<=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff])(?=[0-9-])|(?<=[0-9])(?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff])"
)


def formula(text: str) -> str:
    r"""Rewrite a LaTeX formula so that math-verify 0.9 reads its numbers rightly.

    By itself it reads ``12\,345`` as 251 or 357, ``5e6`` as 5, ``−5`` as nothing and ``十8`` as nothing. Thin spaces between
    groups of three digits go, powers of ten are written out, and signs and digits become ASCII.
    """
    text = _INVISIBLE.sub("", text.strip().strip("$").strip())
    text = _THIN_GROUP.sub(lambda found: found[1] + re.sub("[^0-9]", "", found[2]), text)
    text = _WIDE_GROUP.sub(",", text).translate({**_SIGNS, ord("√"): "√", ord("∞"): r"\infty "})
    text = _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text)
    text = _VULGAR.sub(_vulgar, text).replace("×", r"\times ").replace("π", r"\pi ")
    text = re.sub(
        r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|([0-9A-Za-z]+))", lambda found: rf"\sqrt{{{found[1] or found[2] or found[3]}}}", text
    )
    text = _EXPONENT.sub(lambda found: "^{" + found[0].translate(_SMALL) + "}", text)
    text = _E_NOTATION.sub(r"\1 \\times 10^{\2}", text)
    return _BESIDE_CJK.sub(" ", text.replace("–", "-"))
