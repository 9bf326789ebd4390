"""Hydra's sweepers, and the launcher that has their jobs played as cells. Hydra's grammar of sweeps is read here alone.

A sweeper says which values to try, a launcher plays a batch of them and says what came out: both are Hydra's plugin interfaces,
so that any sweeper there is (optuna, to begin with) finds ours to launch with. Ours are registered by hand; Hydra takes plugins
only from modules named ``hydra_plugins``, so that is what these say they are of.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import re
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config.compose import VERBATIM, explained, folders, hydra, hydra_compose, quote
from runner.config.schema import Sweep as Section
from runner.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Launch = Callable[[Sequence[Sequence[str]]], Sequence[float | None]]
"""Plays a batch: the overrides of each cell in, what each cell is ranked by out (None: it has failed, or has no score)."""

Combine = Callable[[Section, dict[str, list[Any]]], list[dict[str, Any]]]

GRID = "grid"
"""The name of our own sweeper, which plays every combination; Hydra calls the one that it replaces ``basic``."""

_MODULE = "hydra_plugins.ostinato"

_BARE = re.compile(r"(?!(?:true|false|null|inf|nan)$)[A-Za-z_][\w./:@-]*", re.IGNORECASE | re.ASCII)


class Asked(msgspec.Struct, frozen=True):
    """What a command line asks for.

    Attributes:
        fixed: overrides with one value.
        varied: overrides with several, by key (without a leading ``+``).
        hydra: those that are Hydra's own, such as ``hydra/sweeper=optuna``.
    """

    fixed: list[str]
    varied: dict[str, str]
    hydra: list[str]


def split(overrides: Sequence[str]) -> Asked:
    """Tell overrides with several values from those with one. Raises ConfigError for what is no override."""
    asked = Asked([], {}, [])
    for override in overrides:
        if override.startswith(("hydra/", "hydra.", "+hydra.", "++hydra.", "+hydra/")):
            asked.hydra.append(override)
            continue
        found = _sweep_of(override)
        if found is None:
            asked.fixed.append(override)
            asked.varied.pop(override.partition("=")[0].lstrip("+"), None)  # of two overrides of a key the last one counts
        else:
            asked.varied[found.key_or_group] = override
    return asked


def parsed(override: str) -> tuple[str, Any]:
    """Key and value of an override that a sweeper made. Raises ConfigError."""
    key, _, text = override.partition("=")
    return key.lstrip("+"), _value(text)


def text_of(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else quote(value, literal=False)
    if isinstance(value, list):
        return f"[{','.join(map(text_of, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{text_of(item)}' for key, item in value.items())}}}"
    return repr(value)


def sweeper_of(choices: Mapping[str, str]) -> str:
    """Which sweeper Hydra's choices name: ``grid``, or Hydra's name of another. Raises ConfigError for another launcher."""
    if (launcher := choices["hydra/launcher"]) != "basic":
        raise ConfigError(f"hydra/launcher={launcher}: the cells of a sweep are played by ostinato's own launcher")
    chosen = choices["hydra/sweeper"]
    return GRID if chosen == "basic" else chosen


def multirun(
    asked: Asked, section: Section, launch: Launch, *, combine: Combine, folder: Path, config_name: str, config_dir: str | None
) -> None:
    """Have the chosen sweeper propose cells until it is done.

    Args:
        asked: the command line.
        section: the config's section ``sweep``, without the keys that the command line gives.
        launch: plays what is proposed, a batch at a time.
        combine: makes the cells of a grid.
        folder: where a sweeper may write what it found.
        config_name: as in `runner.config.compose.compose`.
        config_dir: likewise.

    Raises:
        ConfigError: the sweeper is not there, or cannot do what is asked.
        Exception: whatever `launch` raises.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext
    from omegaconf import open_dict, read_write

    places = folders(config_dir)
    _register()
    with hydra([*asked.fixed, *asked.hydra], places):
        config = hydra_compose([*asked.fixed, *asked.hydra], places, config_name.removesuffix(".yaml"))
        chosen = sweeper_of(config.hydra.runtime.choices)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = str(folder)
            config.hydra.launcher = {"_target_": f"{_MODULE}.Launcher"}
            if chosen == GRID:
                config.hydra.sweeper = {"_target_": f"{_MODULE}.GridSweeper"}
                arguments = list(asked.varied.values())
            else:
                _settle(config.hydra.sweeper, section, asked.hydra)
                config.hydra.sweeper.params = None  # they are in what is asked
                arguments = [*_arguments(section, chosen), *asked.varied.values()]
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=None)
        task = _Task(launch, combine, section)
        with warnings.catch_warnings():  # what optuna says while it is imported is between it and SQLAlchemy
            warnings.simplefilter("ignore")
            sweeper = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=task)
        for name in ("optuna", "hydra_plugins"):
            logging.getLogger(name).setLevel(logging.ERROR)
    with explained([*asked.fixed, *asked.hydra], places):
        sweeper.sweep(arguments)  # not within `hydra`: it lasts as long as the cells, and these compose in threads of their own


class _Task:
    """What Hydra calls the task function: here it plays whole batches, for our launcher alone."""

    def __init__(self, launch: Launch, combine: Combine, section: Section) -> None:
        self.launch = launch
        self.combine = combine
        self.section = section

    def __call__(self, _config: Any) -> Any:
        raise ConfigError("the cells of a sweep are played by ostinato's own launcher; take hydra/launcher=... away")


@functools.cache
def _register() -> None:
    """Make our plugins known to Hydra."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.plugins import Plugins
    from hydra.core.utils import JobReturn, JobStatus
    from hydra.plugins.launcher import Launcher as HydraLauncher
    from hydra.plugins.sweeper import Sweeper as HydraSweeper

    class Launcher(HydraLauncher):  # type: ignore[misc]
        """Hands batches to the task."""

        __module__, __qualname__ = _MODULE, "Launcher"

        def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:  # noqa: ARG002 - Hydra's signature
            self._task = task_function

        def launch(self, job_overrides: Any, initial_job_idx: int) -> list[Any]:  # noqa: ARG002 - Hydra's signature
            jobs = [list(job) for job in job_overrides]
            return [self._returned(job, value) for job, value in zip(jobs, self._task.launch(jobs), strict=True)]

        @staticmethod
        def _returned(job: list[str], value: float | None) -> Any:
            returned = JobReturn(overrides=job)
            returned.return_value = ConfigError("the cell has no score to be ranked by") if value is None else value
            returned.status = JobStatus.FAILED if value is None else JobStatus.COMPLETED
            return returned

    class GridSweeper(HydraSweeper):  # type: ignore[misc]
        """Every combination, in one batch."""

        __module__, __qualname__ = _MODULE, "GridSweeper"

        def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
            self._loader = hydra_context.config_loader
            self._task = task_function
            self.launcher = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )

        def sweep(self, arguments: list[str]) -> Any:
            section = _listed(self._task.section)
            overrides = OverridesParser.create(config_loader=self._loader).parse_overrides(arguments)
            varied = {override.key_or_group: _values(override) for override in overrides}
            cells = self._task.combine(section, varied)
            jobs = [[f"{key}={text_of(value)}" for key, value in cell.items()] for cell in cells]
            return self.launcher.launch(jobs, initial_job_idx=0)

    module = types.ModuleType(_MODULE)
    for plugin in (Launcher, GridSweeper):
        Plugins.instance().register(plugin)
        setattr(module, plugin.__name__, plugin)
    parent = _MODULE.partition(".")[0]
    if importlib.util.find_spec(parent) is None:
        sys.modules[parent] = types.ModuleType(parent)
    sys.modules[_MODULE] = module  # Hydra finds a class by its name, even where it has it
    setattr(importlib.import_module(parent), "ostinato", module)  # noqa: B010 - it declares no such attribute


def _settle(settings: Any, section: Section, given: Sequence[str]) -> None:
    """Tell a sweeper that searches what the section says, where it has such a setting and the command line does not give it."""
    if any(override.lstrip("+").startswith("hydra.sweeper.direction=") for override in given):
        raise ConfigError("hydra.sweeper.direction: is set by sweep.direction, which the table follows too")
    said = {"direction": section.direction, "n_jobs": section.concurrency, "max_failure_rate": 0.0 if section.fail_fast else 1.0}
    for name, value in said.items():
        if name in settings and not any(override.lstrip("+").startswith(f"hydra.sweeper.{name}=") for override in given):
            settings[name] = value
    sampler = settings.get("sampler") or {}
    if "seed" in sampler and sampler["seed"] is None:
        sampler["seed"] = 0  # the same proposals each time: that is how a search that was stopped goes on


def _arguments(section: Section, sweeper: str) -> list[str]:
    """The grid of a section as a sweeper of Hydra's takes it. Raises ConfigError for what only ours can do."""
    if other := [part for part in ("zip", "cells", "exclude") if getattr(section, part)]:
        raise ConfigError(f"sweep.{other[0]}: hydra/sweeper={sweeper} does not know it; it takes what sweep.grid says")
    arguments = []
    for key, given in section.grid.items():
        if isinstance(given, list):
            arguments.append(f"{key}=choice({','.join(map(text_of, given))})")
        else:
            arguments.append(_ranged(key, given))
    return arguments


def _listed(section: Section) -> Section:
    """The section with its ranges as lists. Raises ConfigError for what a grid cannot list, or put in step."""

    def listed(varied: dict[str, Any]) -> dict[str, Any]:
        return {
            key: given if isinstance(given, list) else _values(_sweep_of(_ranged(key, given))) for key, given in varied.items()
        }

    grid, zipped = listed(section.grid), listed(section.zip)
    try:
        return msgspec.structs.replace(section, grid=grid, zip=zipped)
    except ValueError as error:  # ranges in step with lists of another length
        raise ConfigError(f"sweep.{error}") from None


def _ranged(key: str, given: dict[str, list[int | float]]) -> str:
    ((kind, numbers),) = given.items()
    return f"{key}={kind}({','.join(map(repr, numbers))})"


def _values(override: Any) -> list[Any]:
    """What an override lists. Raises ConfigError."""
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.key_or_group}: an interval has no end of values; search it with hydra/sweeper=optuna")
    found = [_value(text) for text in override.sweep_string_iterator()]
    if not found:
        raise ConfigError(f"{override.input_line or override.key_or_group}: there are no values in it")
    return found


def _sweep_of(override: str) -> Any:
    """The parsed override when it has several values, else None.

    Text of the user's own, such as a prompt, may well have commas: several of those are told by their quotes, or by `choice()`.
    """
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException

    if override.startswith("~") or "=" not in override:
        return None
    try:
        found = _parser().parse_override(override)
        if not found.is_sweep_override():
            return None
    except (HydraException, ValueError, RecursionError):  # not Hydra's grammar: `compose` says so, or takes it literally
        return None
    value = found.value()
    if found.key_or_group in VERBATIM and getattr(value, "simple_form", False):
        return found if all(isinstance(item, QuotedString) for item in value.list) else None
    return found


@functools.lru_cache(maxsize=10_000)
def _value(text: str) -> Any:
    from hydra.errors import HydraException

    try:
        return _parser().parse_override(f"key={text}").value()
    except HydraException as error:
        raise ConfigError(f"'{text}' is no value in Hydra's grammar: {str(error).partition(chr(10))[0]}") from None


@functools.cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()
