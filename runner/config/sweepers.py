"""Run Hydra's sweepers with our launcher.

A sweeper proposes values to try; a launcher runs a batch of them and returns what each is ranked by. Both are plugin interfaces
of Hydra, so any sweeper (optuna, for example) works with our launcher. Our plugins are registered by hand. Hydra accepts plugins
only from modules named ``hydra_plugins``, so ours claim to be from one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config.compose import hydra, hydra_compose
from runner.config.folders import folders
from runner.config.grammar import listed, ranged, sweep_of, text_of
from runner.config.mistakes import explained
from runner.config.schema.sweep import Sweep as Section
from runner.config.searches import Search
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
        found = sweep_of(override)
        if found is None:
            asked.fixed.append(override)
            asked.varied.pop(override.partition("=")[0].lstrip("+"), None)  # the last override of a key counts
        else:
            asked.varied[found.key_or_group] = found.input_line or override
    return asked


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
    task, search = _Task(launch, combine, section), None
    with hydra([*asked.fixed, *asked.hydra], places):
        config = hydra_compose([*asked.fixed, *asked.hydra], places, config_name.removesuffix(".yaml"))
        chosen = sweeper_of(config.hydra.runtime.choices)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = str(folder)
            config.hydra.launcher = {"_target_": f"{_MODULE}.Launcher"}
            if chosen == GRID:
                config.hydra.sweeper = {"_target_": f"{_MODULE}.GridSweeper"}
            else:
                search = task.search = Search(chosen, config.hydra.sweeper, section, asked.varied, asked.hydra)
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=None)
        with warnings.catch_warnings():  # importing optuna raises warnings of SQLAlchemy
            warnings.simplefilter("ignore")
            sweeper = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=task)
        for name in ("optuna", "hydra_plugins"):
            logging.getLogger(name).setLevel(logging.ERROR)
    # not within `hydra`: it takes as long as the cells, and these compose in other threads
    with explained([*asked.fixed, *asked.hydra], places), search.explained(task.raised) if search else contextlib.nullcontext():
        sweeper.sweep(search.arguments if search else list(asked.varied.values()))


class _Task:
    """Take the place of the task function that Hydra expects. Only our launcher uses it, to run whole batches."""

    def __init__(self, launch: Launch, combine: Combine, section: Section) -> None:
        self.combine = combine
        self.section = section
        self.search: Search | None = None
        self.raised: list[BaseException] = []
        self._launch = launch

    def launch(self, jobs: Sequence[Sequence[str]]) -> Sequence[float | None]:
        """Run a batch."""
        try:
            return self._launch([self.search.read(job) for job in jobs] if self.search else jobs)
        except BaseException as error:
            self.raised.append(error)
            raise

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

    class Failed(JobReturn):  # type: ignore[misc]
        @property
        def return_value(self) -> Any:  # Hydra's own also writes to stderr
            raise ConfigError("the cell has no score to be ranked by, or too few samples are scored")

    class Launcher(HydraLauncher):  # type: ignore[misc]
        __module__, __qualname__ = _MODULE, "Launcher"

        def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:  # noqa: ARG002 - Hydra's signature
            self._task = task_function

        def launch(self, job_overrides: Any, initial_job_idx: int) -> list[Any]:  # noqa: ARG002 - Hydra's signature
            jobs = [list(job) for job in job_overrides]
            return [self._returned(job, value) for job, value in zip(jobs, self._task.launch(jobs), strict=True)]

        @staticmethod
        def _returned(job: list[str], value: float | None) -> Any:
            if value is None:
                return Failed(overrides=job, status=JobStatus.FAILED)
            returned = JobReturn(overrides=job, status=JobStatus.COMPLETED)
            returned.return_value = value
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
            varied = {override.key_or_group: listed(override) for override in overrides}
            cells = self._task.combine(section, varied)
            jobs = [[f"{key}={text_of(value)}" for key, value in cell.items()] for cell in cells]
            return self.launcher.launch(jobs, initial_job_idx=0)

    return GridSweeper


def _listed(section: Section) -> Section:
    """Return the section with its ranges as lists.

    Raises:
        ConfigError: an interval has no list of values, or the lists in `zip` differ in length.
    """

    def values(varied: dict[str, Any]) -> dict[str, Any]:
        return {key: given if isinstance(given, list) else listed(sweep_of(ranged(key, given))) for key, given in varied.items()}

    grid, zipped = values(section.grid), values(section.zip)
    try:
        return msgspec.structs.replace(section, grid=grid, zip=zipped)
    except ValueError as error:  # a range in `zip` is shorter or longer than the other lists
        raise ConfigError(f"sweep.{error}") from None
