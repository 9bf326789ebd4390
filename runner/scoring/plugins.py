"""Scorers of other packages, by the names that they declare in the entry point group ``ostinato.scorers``."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

from runner.errors import DataError
from runner.plugins import add
from runner.scoring.targets import Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping


class Plugin(Comparison):
    """A scorer of another package.

    What the entry point names is called with `params` as keywords, and returns a function ``(output, target, row)`` that returns
    a bool or a finite number; `row` are the row's columns.

    Args:
        name: the entry point's name; also the score's.
        params: passed on.

    Attributes:
        distribution: the package and its version, for the manifest.

    Raises:
        ConfigError: no package declares it, or it cannot be made.
    """

    def __init__(self, name: str, params: Mapping[str, Any]) -> None:
        added = add("scorer", name, params)
        self.name = name
        self.distribution = added.distribution
        self._function = added.made

    def check(self, target: Any) -> None:
        """Do nothing: the package says which targets it takes."""

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Return what the package says. Raise DataError if it fails, or returns no finite number."""
        try:
            found = self._function(output, target, fields)
        except Exception as error:  # boundary, as above
            raise DataError(f"scorer {self.name!r} ({self.distribution}): {type(error).__name__}: {error}") from error
        if not isinstance(found, Real) or not math.isfinite(found):
            raise DataError(f"scorer {self.name!r} ({self.distribution}) returned {found!r:.80}, and no finite number")
        return float(found)
