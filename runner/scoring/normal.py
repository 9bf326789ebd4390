"""The normal form of text: what scorers compare, and what the training data's check for duplicates compares."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

NO_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Letters of scripts that put no space between words, as a character class: Thai, Lao, Burmese, Khmer, Chinese, Japanese."""

UNSPACED = NO_SPACES + "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
"""The same with Korean, which puts no space before endings. There a word may touch its neighbours: ``选B`` names B."""

NO_LETTER_BEFORE, NO_LETTER_AFTER = rf"(?-i:(?<![^\W_{UNSPACED}]))", rf"(?-i:(?![^\W_{UNSPACED}]))"
"""Borders of a word as expressions: no letter or digit of a script with spaces. An underscore is emphasis, and no part of a word.

Case counts in them, since it takes half a second to compile a class of this size without.
"""

_UNSPACED = re.compile(f"[{UNSPACED}]")
_STRAIGHT = str.maketrans("‘’‚‛′“”„‟«»″「」『』", '\'\'\'\'\'"""""""""""')


def normal(text: str, *, ignore_case: bool = False, straight_quotes: bool = False) -> str:
    """Return `text` in Unicode's form NFC, so that é is one character however it was typed.

    Args:
        text: any text.
        ignore_case: fold the case (ß is ss), too.
        straight_quotes: replace typographic quotes and apostrophes by ``"`` and ``'``, too.
    """
    if text.isascii():
        return text.casefold() if ignore_case else text
    text = unicodedata.normalize("NFC", text)
    if straight_quotes:
        text = text.translate(_STRAIGHT)
    return unicodedata.normalize("NFC", text.casefold()) if ignore_case else text


def folded(text: str) -> str:
    """Return `text` without what does not change its meaning: case, white space, compatibility forms (ﬁ, １) and quotes' shapes.

    Two texts with one folded form are the same question to the check of training data, and the same words to the scorer f1.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_STRAIGHT))
    return " ".join(normal(text, ignore_case=True).split())


class Edges(NamedTuple):
    """Expressions for what may stand around a label, if it is to be found as a whole word or phrase.

    Attributes:
        before: before a label that stands anywhere.
        touching: before a label that words announce, which it may touch where its script has no spaces: ``选是``.
        after: after a label.
    """

    before: str
    touching: str
    after: str


def edges(label: str) -> Edges:
    r"""Return the edges of `label`. Not ``\b``: a label may itself begin or end with a sign, as "C++" does.

    A label of one sign in a script without spaces (是, ก) must not touch a letter before it, or it would be found inside words.
    """
    if not _is_unspaced(label[:1]):
        return Edges(NO_LETTER_BEFORE, NO_LETTER_BEFORE, "" if _is_unspaced(label[-1:]) else NO_LETTER_AFTER)
    before = r"(?<![不没沒非未無无])" if len(label) > 1 else r"(?<![^\W_])"
    return Edges(before, "", "" if _is_unspaced(label[-1:]) else NO_LETTER_AFTER)


def _is_unspaced(character: str) -> bool:
    return _UNSPACED.fullmatch(character) is not None
