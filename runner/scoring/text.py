"""Scorers that compare text: exact, contains, regex, choice and f1."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import ConfigError, DataError
from runner.scoring.targets import wanted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Exact:
    """1.0 when the whole answer is the target (as ``str(target)``), else 0.0.

    Args:
        ignore_case: compare without regard to case. Default False.
        strip: ignore white space around the answer and the target. Default True.
    """

    name = "exact"

    def __init__(self, *, ignore_case: bool = False, strip: bool = True) -> None:
        self._ignore_case = ignore_case
        self._strip = strip

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Compare the text; a list of targets means any of them."""
        answer = self._normal(output)
        return float(answer in [self._normal(str(option)) for option in wanted(self.name, target)])

    def _normal(self, text: str) -> str:
        text = text.strip() if self._strip else text
        return text.casefold() if self._ignore_case else text


class Contains:
    """1.0 when the answer contains the target (as ``str(target)``), else 0.0.

    Args:
        ignore_case: compare without regard to case. Default True.
        whole_word: the target must not touch a letter or digit on either side. Default False.
    """

    name = "contains"

    def __init__(self, *, ignore_case: bool = True, whole_word: bool = False) -> None:
        self._ignore_case = ignore_case
        self._whole_word = whole_word

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Search for the target; a list of targets means any of them."""
        answer = output.casefold() if self._ignore_case else output
        return float(any(self._has(answer, str(option)) for option in wanted(self.name, target)))

    def _has(self, answer: str, option: str) -> bool:
        if not option:
            raise DataError("the target is empty text, which every answer contains")
        option = option.casefold() if self._ignore_case else option
        if not self._whole_word:
            return option in answer
        return re.search(_whole_word(option), answer) is not None


class Regex:
    """1.0 when a regular expression is found in the answer, else 0.0. Python's `re`; use ``^`` and ``$`` for the whole answer.

    Args:
        pattern: the expression; the target is then ignored. Default None: each row's target is its expression.
        ignore_case: match without regard to case. Default False.

    Raises:
        ConfigError: `pattern` is not a valid regular expression.
    """

    name = "regex"

    def __init__(self, pattern: str | None = None, *, ignore_case: bool = False) -> None:
        self._flags = re.IGNORECASE if ignore_case else re.NOFLAG
        self._pattern = None if pattern is None else compile_pattern("scoring.pattern", pattern, self._flags)

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Search for the pattern; without `pattern`, a list of targets means any of them."""
        if self._pattern is not None:
            return float(self._pattern.search(output) is not None)
        try:
            return float(any(re.search(str(option), output, self._flags) for option in wanted(self.name, target)))
        except re.error as error:
            raise DataError(f"the target {target!r} is not a valid regular expression: {error}") from error


class Choice:
    """1.0 when the label that the answer names is the target, else 0.0. For classification in free text.

    A label is named where it stands as a whole word (or phrase) in the answer; of labels that begin at one place, the longest
    counts. An answer that names none scores 0.0.

    Args:
        labels: all labels.
        pick: which one counts when the answer names several: ``first`` (default; as evaluation harnesses do for a short
            answer), ``last`` (for an answer that reasons before it concludes), or ``only`` (an answer that names two
            different labels has not chosen, and scores 0.0).
        ignore_case: find labels without regard to case. Default True; False suits single letters, where the word "a" is not
            the label "A".

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
        self._labels = {self._normal(label): label for label in labels}
        if len(self._labels) < len(labels) or "" in self._labels:
            raise ConfigError(f"scoring.labels: {list(labels)} has labels that are empty or cannot be told apart")
        longest_first = sorted(self._labels, key=len, reverse=True)
        self._pattern = re.compile("|".join(_whole_word(label) for label in longest_first))

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Compare the label named with the target; a list of targets means any of them."""
        options = {self._normal(str(option)) for option in wanted(self.name, target)}
        if unknown := options - self._labels.keys():
            raise DataError(f"the target {min(unknown)!r} is none of the labels {list(self._labels.values())}")
        named = self.label(output)
        return float(named is not None and self._normal(named) in options)

    def label(self, output: str) -> str | None:
        """Return the label that `output` names, spelt as in `labels`, or None."""
        text = self._normal(output)
        if self._pick == "first":
            first = self._pattern.search(text)
            return self._labels[first[0]] if first else None
        named = self._pattern.findall(text)
        if not named or (self._pick == "only" and len(set(named)) > 1):
            return None
        return self._labels[named[-1]]

    def _normal(self, text: str) -> str:
        return text.strip().casefold() if self._ignore_case else text.strip()


class F1:
    """Overlap of words between answer and target: the harmonic mean of precision and recall, as SQuAD computes it.

    Case, ASCII punctuation and the articles a, an, the do not count; words count as often as they occur in both. If nothing
    is left of one side, the score is 1.0 if nothing is left of the other either, else 0.0.
    """

    name = "f1"

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Score the overlap; the best of a list of targets counts."""
        answer = _words(output)
        return max(_f1(answer, _words(str(option))) for option in wanted(self.name, target))


def compile_pattern(key: str, pattern: str, flags: int = 0) -> re.Pattern[str]:
    """Compile a regular expression that the config holds under `key`.

    Raises:
        ConfigError: `pattern` is not a valid regular expression.
    """
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise ConfigError(f"{key}: {pattern!r} is not a valid regular expression: {error}") from error


def _whole_word(text: str) -> str:
    # Not \b: a label may itself begin or end with a sign, as "C++" does, and be emphasised as _this_.
    return rf"(?<![^\W_]){re.escape(text)}(?![^\W_])"


_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _f1(answer: list[str], target: list[str]) -> float:
    if not answer or not target:
        return float(answer == target)
    common = sum((Counter(answer) & Counter(target)).values())
    return 2 * common / (len(answer) + len(target))
