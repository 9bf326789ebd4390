"""The edit scorer: how few characters must change to make the answer the target. By RapidFuzz."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.scoring.normal import normal
from runner.scoring.targets import Comparison, texts, wanted

if TYPE_CHECKING:
    from collections.abc import Mapping


class Edit(Comparison):
    """One minus the Levenshtein distance over the length of the longer text: 1.0 for the same text, 0.0 for nothing in common.

    White space around both does not count, and both are in Unicode's form NFC. The best of a list of targets counts. RapidFuzz
    computes it (Bachmann, github.com/rapidfuzz/RapidFuzz; the extra ``scorers``).

    Args:
        ignore_case: compare without regard to case. Default False.

    Raises:
        ConfigError: RapidFuzz is not installed.
    """

    name = "edit"

    def __init__(self, *, ignore_case: bool = False) -> None:
        if importlib.util.find_spec("rapidfuzz") is None:
            raise ConfigError("scoring 'edit' needs the package rapidfuzz: pip install 'ostinato[scorers]'")
        self._ignore_case = ignore_case

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Compare the characters."""
        from rapidfuzz.distance import Levenshtein

        answer = self._normal(output)
        options = [text for option in wanted(self.name, target) for text in texts(option)]
        return max(float(Levenshtein.normalized_similarity(answer, self._normal(text))) for text in options)

    def _normal(self, text: str) -> str:
        return normal(text.strip(), ignore_case=self._ignore_case)
