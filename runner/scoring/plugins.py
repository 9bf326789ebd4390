"""Scorers of other packages, by the names that they declare in the entry point group ``ostinato.scorers``."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError, DataError
from runner.scoring.targets import Comparison
from runner.system.packages import entry_points
from runner.wording.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP = "ostinato.scorers"
"""A package with a scorer declares ``name = "its.module:function_or_class"`` there."""


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
        known = entry_points(GROUP)
        if name not in known:
            listed = f" (installed: {', '.join(sorted(known))})" if known else f" (no installed package declares {GROUP})"
            raise ConfigError(f"scoring.name: there is no scorer {name!r}{did_you_mean(name, known)}{listed}")
        entry = known[name]
        self.name = name
        self.distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
        try:
            self._function = entry.load()(**params)
        except Exception as error:  # boundary: another package's code may raise anything; the error names the package
            told = f"{type(error).__name__}: {error}"
            raise ConfigError(f"scorer {name!r} ({entry.value}, from {self.distribution}) cannot be made: {told}") from error

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
