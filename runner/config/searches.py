"""Prepare a search for one of Hydra's sweepers, and say in one line why it cannot search."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from runner.config import ranges
from runner.config.grammar import ranged, sweep_of, text_of
from runner.errors import ConfigError, OstinatoError
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.config.schema.sweep import Sweep as Section


_ENDS = ("No trials are completed yet", "`Study.stop` is supposed to be invoked")
"""Errors of optuna at the end of a search: all cells have failed, so none is the best; the last cell of a grid has failed."""


class Search:
    """A search: what one of Hydra's sweepers is given, and how its proposals are read.

    Args:
        name: the sweeper.
        settings: its section of Hydra's config. The settings of `section` are put into it.
        section: the config's section `sweep`.
        varied: what the command line varies, by key, in Hydra's grammar.
        given: overrides of Hydra's own keys.

    Attributes:
        arguments: what varies, in the grammar and meaning of the sweeper.

    Raises:
        ConfigError: the sweeper does not support what is asked.
    """

    def __init__(self, name: str, settings: Any, section: Section, varied: Mapping[str, str], given: Sequence[str]) -> None:
        self.name = name
        _settle(settings, section, given)
        settings.params = None  # `varied` has them
        self._tries_all = str((settings.get("sampler") or {}).get("_target_")).endswith(".GridSampler")
        self._ranges: dict[str, list[ranges.Number]] = {}
        self.arguments = [self._argument(override) for override in [*_arguments(section, name), *varied.values()]]

    def read(self, job: Sequence[str]) -> list[str]:
        """Return the overrides of a proposed cell, in which each value of a range is the number that was written."""
        return [self._read(*override.partition("=")) for override in job]

    def _read(self, key: str, _: str, value: str) -> str:
        values = self._ranges.get(key)
        return f"{key}={value if values is None else repr(ranges.nearest(value, values))}"

    def _argument(self, override: str) -> str:
        found = sweep_of(override)
        if found is None:
            return override
        key = found.key_or_group
        if found.is_interval_sweep() and self._tries_all:
            raise ConfigError(
                f"{key}: an interval has infinitely many values, and this sampler tries each value: list them, or give a "
                f"range, for example {key}=range(0,1,0.1)"
            )
        if not found.is_range_sweep():
            return override
        self._ranges[found.get_key_element()] = ranges.values_of(key, found.value())
        return f"{found.get_key_element()}={ranges.for_search(key, found.value(), discrete=self._tries_all)}"

    @contextlib.contextmanager
    def explained(self, raised: Sequence[BaseException]) -> Iterator[None]:
        """Raise what a sweeper raises as ConfigError, except for what its cells have `raised`."""
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        try:
            yield
        except (OstinatoError, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:  # boundary: a plugin's sampler and storage raise anything
            if error in raised:
                raise
            if any(end in str(error) for end in _ENDS):
                return
            why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            raise ConfigError(f"hydra/sweeper={self.name} cannot search: {redact(why)}; see hydra.sweeper.*") from None


def _settle(settings: Any, section: Section, given: Sequence[str]) -> None:
    """Pass the section's settings on to a sweeper that searches, unless it has no such setting or the command line gives it."""
    if any(override.lstrip("+").startswith("hydra.sweeper.direction=") for override in given):
        raise ConfigError("hydra.sweeper.direction: is set by sweep.direction, which also orders the table")
    said = {"direction": section.direction, "n_jobs": section.concurrency, "max_failure_rate": 0.0 if section.fail_fast else 1.0}
    for name, value in said.items():
        if name in settings and not any(override.lstrip("+").startswith(f"hydra.sweeper.{name}=") for override in given):
            settings[name] = value
    sampler = settings.get("sampler") or {}
    if "seed" in sampler and sampler["seed"] is None:
        sampler["seed"] = 0  # the same proposals each time, so that a stopped search can resume


def _arguments(section: Section, sweeper: str) -> list[str]:
    """Return the grid of a section as overrides for one of Hydra's sweepers.

    Raises:
        ConfigError: the section uses something that only our own sweeper supports.
    """
    if other := [part for part in ("zip", "cells", "exclude") if getattr(section, part)]:
        raise ConfigError(f"sweep.{other[0]}: hydra/sweeper={sweeper} does not support it; it supports sweep.grid alone")
    arguments = []
    for key, given in section.grid.items():
        if isinstance(given, list):
            arguments.append(f"{key}=choice({','.join(map(text_of, given))})")
        else:
            arguments.append(ranged(key, given))
    return arguments
