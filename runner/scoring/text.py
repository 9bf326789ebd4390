"""Scorers that compare text: exact, contains, regex and f1."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any

from runner.answers.values import same
from runner.errors import DataError
from runner.scoring.normal import NO_SPACES, edges, folded, normal
from runner.scoring.targets import Comparison, compile_pattern, texts, wanted

if TYPE_CHECKING:
    from collections.abc import Mapping


class Exact(Comparison):
    """1.0 when the whole answer is the target, else 0.0. Both are compared in Unicode's form NFC.

    A target that is a number or a boolean is compared as JSON: ``42.0`` equals ``42``, and true equals ``true``.

    Args:
        ignore_case: compare without regard to case. Default False.
        strip: ignore white space around the answer and the target. Default True.
        straight_quotes: typographic quotes and apostrophes equal straight ones. Default False.
    """

    name = "exact"

    def __init__(self, *, ignore_case: bool = False, strip: bool = True, straight_quotes: bool = False) -> None:
        self._ignore_case = ignore_case
        self._strip = strip
        self._straight_quotes = straight_quotes

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Compare the text; a list of targets means any of them."""
        answer = self._normal(output)
        options = wanted(self.name, target)
        return float(any(answer in map(self._normal, texts(option)) or _same_json(output, option) for option in options))

    def _normal(self, text: str) -> str:
        text = text.strip() if self._strip else text
        return normal(text, ignore_case=self._ignore_case, straight_quotes=self._straight_quotes)


class Contains(Comparison):
    """1.0 when the answer contains the target, else 0.0. Both are compared in Unicode's form NFC.

    Args:
        ignore_case: compare without regard to case. Default True.
        whole_word: the target must not touch a letter or digit on either side; in scripts without spaces it may. Default False.
        straight_quotes: typographic quotes and apostrophes equal straight ones. Default False.
    """

    name = "contains"

    def __init__(self, *, ignore_case: bool = True, whole_word: bool = False, straight_quotes: bool = False) -> None:
        self._ignore_case = ignore_case
        self._whole_word = whole_word
        self._straight_quotes = straight_quotes

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Search for the target; a list of targets means any of them."""
        answer = self._normal(output)
        return float(any(self._has(answer, text) for option in wanted(self.name, target) for text in texts(option)))

    def _has(self, answer: str, option: str) -> bool:
        option = self._normal(option)
        if not self._whole_word:
            return option in answer
        edge = edges(option)
        return re.search(f"{edge.before}{re.escape(option)}{edge.after}", answer) is not None

    def _normal(self, text: str) -> str:
        return normal(text, ignore_case=self._ignore_case, straight_quotes=self._straight_quotes)


class Regex(Comparison):
    """1.0 when a regular expression is found in the answer, else 0.0. Python's `re`; use ``^`` and ``$`` for the whole answer.

    Answer and expression are compared in Unicode's form NFC.

    Args:
        pattern: the expression; the target is then ignored. Default None: each row's target is its expression.
        ignore_case: match without regard to case. Default False.

    Raises:
        ConfigError: `pattern` is not a valid regular expression.
    """

    name = "regex"

    def __init__(self, pattern: str | None = None, *, ignore_case: bool = False) -> None:
        self._flags = re.IGNORECASE if ignore_case else re.NOFLAG
        self._pattern = None if pattern is None else compile_pattern("scoring.pattern", normal(pattern), self._flags)

    def check(self, target: Any) -> None:
        """Raise DataError if `target` is needed, and missing or not a valid regular expression."""
        if self._pattern is None:
            self._patterns(target)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Search for the pattern; without `pattern`, a list of targets means any of them."""
        patterns = [self._pattern] if self._pattern is not None else self._patterns(target)
        answer = normal(output)
        return float(any(pattern.search(answer) for pattern in patterns))

    def _patterns(self, target: Any) -> list[re.Pattern[str]]:
        options = [
            text for option in wanted(self.name, target) for text in ([option] if isinstance(option, str) else texts(option))
        ]
        try:
            return [re.compile(normal(option), self._flags) for option in options]
        except re.error as error:
            raise DataError(f"the target {target!r} is not a valid regular expression: {error}") from error


class F1(Comparison):
    """Overlap of words between answer and target: the harmonic mean of precision and recall, as SQuAD computes it.

    Case, punctuation, Unicode's compatibility forms and the articles a, an, the do not count; words count as often as they occur
    in both. A minus sign before a number and the point in it do count: -5 is not 5, and 1.5 is not 15. In scripts without
    spaces (Chinese, Japanese, Thai, ...) each character is a word, as in CMRC 2018 (Cui et al. 2019). If nothing is left of one
    side, the score is 1.0 if nothing is left of the other either, else 0.0.
    """

    name = "f1"

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Score the overlap; the best of a list of targets counts."""
        answer = words(output)
        return max(_f1(answer, words(text)) for option in wanted(self.name, target) for text in texts(option))


_LONGEST_SCALAR = 64


def _same_json(output: str, option: Any) -> bool:
    """Return whether a number or boolean equals the answer read as JSON (``5.00`` is 5)."""
    if not isinstance(option, (bool, int, float)) or len(output) > _LONGEST_SCALAR:
        return False
    try:
        return same(json.loads(output), option)
    except ValueError:
        return False


_MINUS = str.maketrans("\N{MINUS SIGN}\N{NON-BREAKING HYPHEN}\N{HYPHEN}", "---")
_SIGN = re.compile(r"(?<!\w)-(?=\.?[0-9])|(?<=[0-9])\.(?=[0-9])|([^\w\s]|_)")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_TOKEN = re.compile(rf"[{NO_SPACES}]|[^\s{NO_SPACES}]+")


def words(text: str) -> list[str]:
    """Return the words of `text` that `F1` compares."""
    plain = _SIGN.sub(_kept, folded(text.translate(_MINUS)))
    return _TOKEN.findall(_ARTICLES.sub(" ", plain))


def _kept(found: re.Match[str]) -> str:
    """Return a sign that counts: one of a number's, or one that is not punctuation (as SQuAD: all of ASCII's signs are)."""
    sign = found[1]
    return found[0] if sign is None or not (sign.isascii() or unicodedata.category(sign).startswith("P")) else ""


def _f1(answer: list[str], target: list[str]) -> float:
    if not answer or not target:
        return float(answer == target)
    common = sum((Counter(answer) & Counter(target)).values())
    return 2 * common / (len(answer) + len(target))
