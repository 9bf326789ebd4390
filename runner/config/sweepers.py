"""Run Hydra's sweepers with our launcher, and parse Hydra's grammar of sweeps.

A sweeper proposes values to try; a launcher runs a batch of them and returns what each is ranked by. Both are plugin interfaces
of Hydra, so any sweeper (optuna, for example) works with our launcher. Our plugins are registered by hand. Hydra accepts plugins
only from modules named ``hydra_plugins``, so ours claim to be from one.
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

from runner.config.compose import hydra, hydra_compose
from runner.config.folders import folders
from runner.config.mistakes import explained
from runner.config.overrides import VERBATIM, parser, quote
from runner.config.schema import Sweep as Section
from runner.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Launch = Callable[[Sequence[Sequence[str]]], Sequence[float | None]]
"""Run a batch: takes the overrides of each cell, returns the score that each is ranked by (None: it failed or has no score)."""

Combine = Callable[[Section, dict[str, list[Any]]], list[dict[str, Any]]]
"""Make the values of each cell of a grid from the section and from what the command line varies."""

GRID = "grid"
"""The name of our own sweeper, which proposes every combination. It replaces Hydra's ``basic``."""

_MODULE = "hydra_plugins.ostinato"

_BARE = re.compile(r"(?!(?:true|false|null|inf|nan)$)[A-Za-z_][\w./:@-]*", re.IGNORECASE | re.ASCII)


class Asked(msgspec.Struct, frozen=True):
    """Hold the overrides of a command line.

    Attributes:
        fixed: those with one value.
        varied: those with several values, by key (without a leading ``+``).
        hydra: those of Hydra itself, such as ``hydra/sweeper=optuna``.
    """

    fixed: list[str]
    varied: dict[str, str]
    hydra: list[str]


def split(overrides: Sequence[str]) -> Asked:
    """Sort overrides into those with one value, those with several, and those of Hydra itself."""
    asked = Asked([], {}, [])
    for override in overrides:
        if override.startswith(("hydra/", "hydra.", "+hydra.", "++hydra.", "+hydra/")):
            asked.hydra.append(override)
            continue
        found = _sweep_of(override)
        if found is None:
            asked.fixed.append(override)
            asked.varied.pop(override.partition("=")[0].lstrip("+"), None)  # the last override of a key counts
        else:
            asked.varied[found.key_or_group] = override
    return asked


def parsed(override: str) -> tuple[str, Any]:
    """Return the key and the value of an override that a sweeper proposes.

    Raises:
        ConfigError: the value is not in Hydra's grammar.
    """
    key, _, text = override.partition("=")
    return key.lstrip("+"), _value(text)


def text_of(value: Any) -> str:
    """Return a value in Hydra's grammar."""
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
    """Return the chosen sweeper: ``grid``, or Hydra's name of another.

    Raises:
        ConfigError: another launcher is chosen.
    """
    if (launcher := choices["hydra/launcher"]) != "basic":
        raise ConfigError(f"hydra/launcher={launcher}: the cells of a sweep are run by ostinato's own launcher")
    chosen = choices["hydra/sweeper"]
    return GRID if chosen == "basic" else chosen


def multirun(
    asked: Asked, section: Section, launch: Launch, *, combine: Combine, folder: Path, config_name: str, config_dir: str | None
) -> None:
    """Have the chosen sweeper propose cells until it is done.

    Args:
        asked: the command line.
        section: the config's section ``sweep``, without the keys that the command line gives.
        launch: runs what is proposed, one batch per call.
        combine: makes the cells of a grid.
        folder: where a sweeper may write its results.
        config_name: as in `runner.config.compose.compose`.
        config_dir: as in `runner.config.compose.compose`.

    Raises:
        ConfigError: the sweeper is not installed, or does not support what is asked.
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
                config.hydra.sweeper.params = None  # `asked` has them
                arguments = [*_arguments(section, chosen), *asked.varied.values()]
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=None)
        task = _Task(launch, combine, section)
        with warnings.catch_warnings():  # importing optuna raises warnings of SQLAlchemy
            warnings.simplefilter("ignore")
            sweeper = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=task)
        for name in ("optuna", "hydra_plugins"):
            logging.getLogger(name).setLevel(logging.ERROR)
    with explained([*asked.fixed, *asked.hydra], places):
        sweeper.sweep(arguments)  # not within `hydra`: it takes as long as the cells, and these compose in other threads


class _Task:
    """Take the place of the task function that Hydra expects. Only our launcher uses it, to run whole batches."""

    def __init__(self, launch: Launch, combine: Combine, section: Section) -> None:
        self.launch = launch
        self.combine = combine
        self.section = section

    def __call__(self, _config: Any) -> Any:
        raise ConfigError("the cells of a sweep are run by ostinato's own launcher; remove hydra/launcher=...")


@functools.cache
def _register() -> None:
    """Register our plugins with Hydra, and put them into a module where Hydra finds them by name."""
    from hydra.core.plugins import Plugins

    module = types.ModuleType(_MODULE)
    for plugin in (_launcher(), _grid_sweeper()):
        Plugins.instance().register(plugin)
        setattr(module, plugin.__name__, plugin)
    package, _, name = _MODULE.partition(".")
    if importlib.util.find_spec(package) is None:  # no other plugin of Hydra is installed
        sys.modules[package] = types.ModuleType(package)
    sys.modules[_MODULE] = module
    setattr(importlib.import_module(package), name, module)


def _launcher() -> Any:
    """Return the launcher that hands batches to the task."""
    from hydra.core.utils import JobReturn, JobStatus
    from hydra.plugins.launcher import Launcher as HydraLauncher

    class Launcher(HydraLauncher):  # type: ignore[misc]
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

    return Launcher


def _grid_sweeper() -> Any:
    """Return the sweeper that proposes every combination, in one batch."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.plugins import Plugins
    from hydra.plugins.sweeper import Sweeper as HydraSweeper

    class GridSweeper(HydraSweeper):  # type: ignore[misc]
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

    return GridSweeper


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
            arguments.append(_ranged(key, given))
    return arguments


def _listed(section: Section) -> Section:
    """Return the section with its ranges as lists.

    Raises:
        ConfigError: an interval has no list of values, or the lists in `zip` differ in length.
    """

    def listed(varied: dict[str, Any]) -> dict[str, Any]:
        return {
            key: given if isinstance(given, list) else _values(_sweep_of(_ranged(key, given))) for key, given in varied.items()
        }

    grid, zipped = listed(section.grid), listed(section.zip)
    try:
        return msgspec.structs.replace(section, grid=grid, zip=zipped)
    except ValueError as error:  # a range in `zip` is shorter or longer than the other lists
        raise ConfigError(f"sweep.{error}") from None


def _ranged(key: str, given: dict[str, list[int | float]]) -> str:
    ((kind, numbers),) = given.items()
    return f"{key}={kind}({','.join(map(repr, numbers))})"


def _values(override: Any) -> list[Any]:
    """Return the values that an override lists.

    Raises:
        ConfigError: it is an interval, or lists nothing.
    """
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.key_or_group}: an interval has infinitely many values; search it with hydra/sweeper=optuna")
    found = [_value(text) for text in override.sweep_string_iterator()]
    if not found:
        raise ConfigError(f"{override.input_line or override.key_or_group}: has no values")
    return found


def _sweep_of(override: str) -> Any:
    """Return the parsed override if it has several values, else None.

    The user's own text, such as a prompt, may contain commas. Several such texts need quotes, or `choice()`.
    """
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException

    if override.startswith("~") or "=" not in override:
        return None
    try:
        found = parser().parse_override(override)
        if not found.is_sweep_override():
            return None
    except (HydraException, ValueError, RecursionError):  # not in Hydra's grammar: `compose` refuses it, or takes it literally
        return None
    value = found.value()
    if found.key_or_group in VERBATIM and getattr(value, "simple_form", False):
        return found if all(isinstance(item, QuotedString) for item in value.list) else None
    return found


@functools.lru_cache(maxsize=10_000)
def _value(text: str) -> Any:
    from hydra.errors import HydraException

    try:
        return parser().parse_override(f"key={text}").value()
    except HydraException as error:
        raise ConfigError(f"'{text}' is not a value in Hydra's grammar: {str(error).partition(chr(10))[0]}") from None
