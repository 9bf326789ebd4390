"""The plugin solver: a function of an installed package answers a row."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.plugins import add
from runner.solvers.python import Python
from runner.solvers.solved import Bounds

if TYPE_CHECKING:
    from collections.abc import Mapping


class Plugin(Python):
    """Answer a row by a function of a package. What its entry point names is called with `params`, and returns it.

    The function is called as that of `Python`, with (row, lm).

    Args:
        name: the entry point's name.
        params: passed on.
        bounds: what it may take for a row.

    Raises:
        ConfigError: no package declares it, or it cannot be made.
    """

    def __init__(self, name: str, params: Mapping[str, Any], bounds: Bounds = Bounds()) -> None:  # noqa: B008 - it is immutable
        added = add("solver", name, params)
        if not inspect.isroutine(added.made):
            raise ConfigError(f"{added.where} returned a {type(added.made).__name__}; it must return a function (row, lm)")
        self.bounds = bounds
        self._use(added.made, name, Path(inspect.getfile(added.made)), {})
