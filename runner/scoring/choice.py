"""The choice scorer: finds the label that an answer names."""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import ConfigError, DataError
from runner.scoring.anchors import announcing, boxed, calling_right, tagged
from runner.scoring.normal import Edges, edges
from runner.scoring.targets import Comparison, texts, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_OPENING = r"""[\s*_"'“”‘’«»„「『【（(\[{<$`~:：=#>-]"""
_CLOSING = r"""[\s*_"'“”‘’«»„」』】）)\]}>$`~.。,，;；:：!！?？\\]"""
_NOUN_BEFORE = (
    r"(?:(?:the|la|le|el|die|der)\s+)?"
    r"(?:(?:option|choice|answer|letter|label|statement|alternative|antwort|réponse|opción|opção|opzione|вариант|选项|選項)(?![a-z])\s*)?"
)
_BEFORE = rf"{_OPENING}{{0,20}}(?:\\[a-z]+\{{){{0,3}}{_NOUN_BEFORE}{_OPENING}{{0,20}}"
_COMMAND = re.compile(r"\\[A-Za-z]+")

_WORDS = frozenset("aàáeéèêioóuyzвиоуяас")
"""Letters that are words of some language ("a", "e", "o", "y", "и", ...)."""
_AFTER_A_LABEL = frozenset(
    "is was are because since as and or but would has for with seems looks appears must should can cannot says states".split()  # noqa: SIM905
)
"""Words that follow the label A ("A is", "A because") and hardly ever the article "a"."""
_NEXT_WORD = re.compile(r"[ \t]+([^\W\d_]+)")


class Choice(Comparison):
    r"""1.0 when the label that the answer names is the target, else 0.0. For classification in free text.

    A label that is announced goes before a loose one. It is announced in ``\boxed{B}`` or ``<answer>B</answer>``; then after
    words such as "the answer is", "Answer:", "I choose", ``答案是``, ``选`` (`runner.scoring.anchors` has them for 21 languages);
    then alone on the last line; then where it is called right ("B is correct", ``B选项正确``). Of several the last one counts.

    Otherwise a label is named where it stands as a whole word (or phrase) in the answer; of labels that begin at one place, the
    longest counts. A single letter is no label where it is a word ("A careful look", "I think") or a part of one ("I'd"). An
    answer that names none scores 0.0.

    Args:
        labels: all labels.
        pick: which one counts when the answer names several and announces none: ``first`` (default; as evaluation harnesses do
            for a short answer), ``last`` (for an answer that reasons before it concludes), or ``only`` (an answer that names, or
            announces, two different labels has not chosen, and scores 0.0).
        ignore_case: find labels without regard to case. Default True; False suits single letters.

    Raises:
        ConfigError: fewer than two labels, or two that cannot be told apart.
    """

    name = "choice"

    def __init__(
        self, labels: Sequence[str] | None, *, pick: Literal["first", "last", "only"] = "first", ignore_case: bool = True
    ) -> None:
        if not labels or len(labels) < 2:  # noqa: PLR2004 - a choice is between two
            raise ConfigError("scoring.labels: the scorer 'choice' needs the list of labels, two or more")
        self._pick = pick
        self._ignore_case = ignore_case
        self._labels = {self._key(label): label for label in labels}
        if len(self._labels) < len(labels) or "" in self._labels:
            raise ConfigError(f"scoring.labels: {list(labels)} has labels that are empty or cannot be told apart")
        self._compile(sorted(map(self._text, labels), key=len, reverse=True))

    def _compile(self, labels: Sequence[str]) -> None:
        loose = "|".join(f"{edge.before}(?:{same}){edge.after}" for edge, same in _by_edges(labels))
        after_words = "|".join(f"{edge.touching}(?:{same}){edge.after}" for edge, same in _by_edges(labels))
        case = "i" if self._ignore_case else "-i"
        loose, label = f"(?{case}:(?P<label>{loose}))", f"(?{case}:(?P<label>{after_words}))"
        self._loose = re.compile(loose)
        self._announced = re.compile(_BEFORE + label, re.IGNORECASE)
        self._alone = re.compile(rf"{_BEFORE}{label}{_CLOSING}*", re.IGNORECASE)
        self._called_right = re.compile(rf"{loose}{_CLOSING}{{0,20}}")

    def check(self, target: Any) -> None:
        """Raise DataError if `target` is missing or is none of the labels."""
        self._options(target)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Compare the label named with the target; a list of targets means any of them."""
        options = self._options(target)
        named = self.label(output)
        return float(named is not None and self._key(named) in options)

    def reads(self, output: str, target: Any, parsed: Any) -> bool:  # noqa: ARG002 - Scorer
        """Return whether the answer names a label."""
        return self.label(output) is not None

    def label(self, output: str) -> str | None:
        """Return the label that `output` names, spelt as in `labels`, or None."""
        for marked in (boxed(output), tagged(output)):
            if marked is not None:
                places = self._loose.finditer(_COMMAND.sub(" ", self._text(marked)))
                if found := self._counting(places, _is_label):
                    return self._one(found, "only")
        text = self._text(output)
        announced = (self._announced.match(text, words.end()) for words in announcing().finditer(text))
        if found := self._counting(announced, _is_no_word):
            return self._one(found, "only" if self._pick == "only" else "last")
        if alone := self._alone.fullmatch(text.rpartition("\n")[2]):
            return self._labels[self._key(alone["label"])]
        right = (place for place in self._called_right.finditer(text) if calling_right().match(text, place.end()))
        if found := self._counting(right, _is_label):
            return self._one(found, "only" if self._pick == "only" else "last")
        found = self._counting(self._loose.finditer(text), _is_label)
        if not found and "\n" not in text and (begun := self._loose.match(text)):  # "A dog", as base models write
            return self._labels[self._key(begun["label"])]
        return self._one(found, self._pick) if found else None

    def _one(self, found: Sequence[str], pick: Literal["first", "last", "only"]) -> str | None:
        if pick == "only" and len(set(found)) > 1:
            return None
        return found[0 if pick == "first" else -1]

    def _counting(self, places: Iterable[re.Match[str] | None], counts: Callable[[re.Match[str]], bool]) -> list[str]:
        """Return the labels that were found and that count where they stand, in order."""
        return [self._labels[self._key(place["label"])] for place in places if place is not None and counts(place)]

    def _options(self, target: Any) -> set[str]:
        options = set()
        for option in wanted(self.name, target):
            named = {key for text in texts(option) if (key := self._key(text)) in self._labels}
            if not named:
                raise DataError(f"the target {self._key(str(option))!r} is none of the labels {list(self._labels.values())}")
            options |= named
        return options

    def _text(self, text: str) -> str:
        text = text.strip() if text.isascii() else unicodedata.normalize("NFKC", text).strip()
        return (
            text.replace("ß", "ss").replace("ẞ", "SS") if self._ignore_case else text
        )  # re.IGNORECASE compares signs one by one

    def _key(self, text: str) -> str:
        return self._text(text).casefold() if self._ignore_case else self._text(text)


def _by_edges(labels: Sequence[str]) -> list[tuple[Edges, str]]:
    """Return the labels, those with the same edges in one expression. Edges are large classes that take long to compile."""
    return [(edge, "|".join(map(re.escape, same))) for edge, same in groupby(labels, edges)]


def single_letters(labels: Sequence[str]) -> list[str]:
    """Return the labels that are single letters."""
    return [label for label in labels if len(label.strip()) == 1 and label.strip().isalpha()]


def _is_no_word(place: re.Match[str]) -> bool:
    """Return False for a single letter that is a word where it stands: "a", "I think", "A careful look"."""
    letter, text, (start, end) = place["label"], place.string, place.span("label")
    if letter.casefold() not in _WORDS or text[start - 1 : start] in tuple("([{*\"'`“「【<"):
        return True
    following = _NEXT_WORD.match(text, end)
    if following is None:
        return letter.isupper() or text[end : end + 1] != " "
    return letter.isupper() and (following[1] in _AFTER_A_LABEL or following[1][:1].isupper())


def _is_label(place: re.Match[str]) -> bool:
    """Return False for a single letter that is a word or a part of one: also "I'd", "l'eau", "U.S.A.", "A-level"."""
    letter, text, (start, end) = place["label"], place.string, place.span("label")
    if len(letter) > 1 or not letter.isalpha():
        return True
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    touches = before[-1:] in ("'", "’", ".") and before[:-1].isalpha()
    return not touches and not (after[:1] in ("'", "’", "-") and after[1:].isalpha()) and _is_no_word(place)
