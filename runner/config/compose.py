"""Compose a config with Hydra: overrides and YAML groups in, one plain dict out."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config import kept, yaml
from runner.config.folders import file_of, folders, options, state_of
from runner.config.interpolation import interpolates, is_missing, resolve
from runner.config.kept import Kept
from runner.config.load import dump, load, walk
from runner.config.mistakes import explained, told
from runner.config.older import as_recorded
from runner.config.overrides import OVERRIDE, prepared, shown
from runner.config.schema import RunConfig
from runner.config.source import register_source, searched
from runner.errors import ConfigError
from runner.system.paths import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Composition(msgspec.Struct, frozen=True):
    """Hold a composed config.

    Attributes:
        raw: as written, interpolations unresolved.
        plain: resolved.
        choices: the option of each group.
        overrides: as written on the command line.
        folders: that were searched, in order.
        name: of the primary config, without ``.yaml``.
        hydra: the options of Hydra's own groups, such as its sweeper.
        params: what ``hydra.sweeper.params`` varies, by key, in Hydra's grammar.
    """

    raw: dict[str, Any]
    plain: dict[str, Any]
    choices: dict[str, str]
    overrides: list[str]
    folders: list[Path]
    name: str
    hydra: dict[str, str]
    params: dict[str, str]

    def config(self) -> RunConfig:
        """Return the typed config.

        Raises:
            ConfigError: a value is not allowed; the message names the file or the override that sets it.
        """
        return load(self.plain, self.origin)

    def origin(self, path: str) -> str:
        """Return the override, or the file and its line, that sets `path`; '' if unknown."""
        key = path.partition("[")[0]
        for override in reversed(self.overrides):
            match = OVERRIDE.match(override)
            if match and (key == match["key"] or key.startswith(f"{match['key']}.")) and match["key"] not in self.choices:
                return f"override '{shown(override)}'"
        group, _, inner = key.partition(".")
        chosen = {choice.partition("@")[0]: option for choice, option in self.choices.items()}
        for name, wanted in (("local", key), ("experiment", key), (group, inner)):
            if (
                name in chosen
                and (file := file_of(f"{name}/{chosen[name]}", self.folders))
                and (line := yaml.line_of(file, wanted))
            ):
                return f"{shortened(file)}, line {line}"
        primary = file_of(self.name, self.folders)
        line = yaml.line_of(primary, key) if primary else None
        return f"{shortened(primary)}, line {line}" if primary and line else ""


def compose(overrides: list[str], *, config_name: str = "config", config_dir: str | None = None) -> Composition:
    """Compose the groups and apply `overrides`, in Hydra's grammar.

    Args:
        overrides: ``key=value``, ``group=option``, ``+key=value``, ``~key``. A model id may stand for a model option:
            ``model=openai/gpt-5.4-mini`` is ``model=litellm model.name=openai/gpt-5.4-mini``. So may the alias of a registered
            model: ``model=tickets@latest``.
        config_name: the primary config, without ``.yaml``.
        config_dir: a folder that is searched before ``./conf`` and the shipped one.

    Raises:
        ConfigError: a key, an option or a value does not exist or is not allowed.
    """
    places = folders(config_dir)
    primary = config_name.removesuffix(".yaml")
    key = kept.key_of(primary, overrides, _surroundings(places, overrides))
    made, is_new = kept.find(key), False
    if made is None:
        made, is_new = _composed(overrides, places, primary)
    plain = _resolved(made.raw, overrides, places)
    if is_new:
        with contextlib.suppress(ConfigError):  # it is no config: whoever uses it is told
            load(plain)
            kept.keep(key, made)
    return Composition(
        raw=made.raw,
        plain=plain,
        choices=made.choices,
        overrides=list(overrides),
        folders=places,
        name=primary,
        hydra=made.hydra,
        params=made.params,
    )


def _composed(overrides: Sequence[str], places: Sequence[Path], primary: str) -> tuple[Kept, bool]:
    """Compose with Hydra. Return the result, and whether it may be kept: a search path of the user's leads to other files."""
    with hydra(overrides, places):
        composed = hydra_compose(overrides, places, primary)
        choices = {str(group): str(option) for group, option in composed.hydra.runtime.choices.items()}
        own = {group: option for group, option in choices.items() if group.startswith("hydra/")}
        sweeper = composed.hydra.sweeper
        if isinstance(sweeper, str):
            raise ConfigError(f"hydra.sweeper={sweeper}: a sweeper is chosen with a slash: hydra/sweeper={sweeper}")
        params = {str(key): str(values) for key, values in (sweeper.get("params") or {}).items()}
        chosen = {group: option for group, option in choices.items() if group not in own}
        is_ours = not composed.hydra.searchpath
        return Kept(raw=_container(composed), choices=chosen, hydra=own, params=params), is_ours


def _resolved(raw: dict[str, Any], overrides: Sequence[str], places: Sequence[Path]) -> dict[str, Any]:
    """Resolve interpolations. Most configs have none, and are resolved without OmegaConf. Raises ConfigError."""
    if not any(interpolates(at, value) or is_missing(at, value) for at, value in walk(raw)):
        return raw
    with explained(overrides, places):
        return resolve(raw)


_hydra = threading.RLock()
"""Hydra's state belongs to the whole process, so one thread composes at a time."""


@contextlib.contextmanager
def hydra(overrides: Sequence[str], places: Sequence[Path]) -> Iterator[None]:
    """Have Hydra look for config groups in `places` during the block, and raise its errors as ConfigError.

    Other threads that compose wait, so keep the block short.

    Args:
        overrides: those that messages may blame.
        places: the folders with config groups, from `folders`.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with _hydra, explained(overrides, places):
        token = searched.set(places)
        previous = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            register_source()
            with initialize_config_dir(str(places[-1]), version_base="1.3", job_name="ostinato"):
                yield
        finally:
            GlobalHydra.instance().hydra = previous
            searched.reset(token)


def hydra_compose(overrides: Sequence[str], places: Sequence[Path], primary: str) -> Any:
    """Return Hydra's own config of the composed groups, its node ``hydra`` included. Call it within `hydra`.

    Raises:
        ConfigError: as `compose`.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    file = file_of(primary, places)
    if file is None:
        raise ConfigError(f"-cn {primary}: no such config in {', '.join(map(shortened, places))}")
    if primary.startswith("experiment/") and "@package _global_" in file.read_text("utf-8"):
        raise ConfigError(f"-cn {primary}: is only a part of a config; add it to one: +{primary.replace('/', '=', 1)}")
    try:
        chosen, values = _by_use(prepared(overrides, places, primary), places)
        composed = copy.deepcopy(_put_together(primary, tuple(chosen), _surroundings(places, chosen)))
        composed.hydra.runtime.cwd = str(Path.cwd())
        _apply(values, composed)
    except (ConfigError, HydraException, OmegaConfBaseException, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001 - boundary: on a malformed defaults list, Hydra raises errors of any type
        raise ConfigError(f"the defaults lists and the chosen options cannot be put together: {error}") from None
    return composed


def read_run(path: Path) -> RunConfig:
    """Return the config of a run. Fields that its version lacked are as they were then (`older`). Raises as `read`."""
    return _read(path, as_recorded)


@functools.lru_cache(maxsize=16)
def _put_together(primary: str, chosen: tuple[str, ...], surroundings: object) -> Any:  # noqa: ARG001 - part of the key
    """Put the chosen options together with Hydra. Each time costs a seventh of a second, and cells of a sweep share them."""
    from hydra import compose as put_together

    return put_together(primary, overrides=list(chosen), return_hydra_config=True)


def _by_use(overrides: Sequence[str], places: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Return the overrides that choose options, or that Hydra reads itself, and those that set values in what was chosen."""
    chosen: list[str] = []
    values: list[str] = []
    for override in overrides:
        key = override.lstrip("~+").partition("=")[0]
        sets_value = (
            not key.startswith("hydra") and "@" not in key and "/" not in key and ("." in key or not options(key, places))
        )
        (values if sets_value else chosen).append(override)
    return chosen, values


def _apply(values: Sequence[str], composed: Any) -> None:
    """Set values in a composed config, as Hydra's own composition does after it has put the options together (1.3.8)."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.types import RunMode

    parsed = OverridesParser.create().parse_overrides(overrides=list(values))
    loader = GlobalHydra.instance().config_loader()
    loader.validate_sweep_overrides_legal(overrides=parsed, run_mode=RunMode.RUN, from_shell=False)
    ConfigLoaderImpl._apply_overrides_to_config(parsed, composed)  # noqa: SLF001 - Hydra has no public name for it


def _surroundings(places: Sequence[Path], chosen: Sequence[str]) -> tuple[object, ...]:
    """Return what a composition depends on beside its overrides: the files, the current folder and the environment.

    The shipped files alone depend on neither of the last two; a user's file, and Hydra's own overrides, may.
    """
    states = tuple((str(file), state_of(file)) for place in places for file in sorted(_files_in(place)))
    if len(places) == 1 and not any("hydra" in override or "${" in override for override in chosen):
        return str(places[0]), states
    return tuple(map(str, places)), states, str(Path.cwd()), tuple(sorted(os.environ.items()))


def _files_in(place: Path) -> Iterator[Path]:
    """Yield the YAML files in a folder and below it, also behind links to folders, as Hydra finds them."""
    seen: set[str] = set()
    for folder, below, names in os.walk(place, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            below.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in names if name.endswith(".yaml"))


def read(path: Path) -> RunConfig:
    """Return the config that a folder holds (``config.yaml``, already resolved).

    Raises:
        ConfigError: the file is missing, is not YAML, or is not a config.
    """
    return _read(path, lambda plain: plain)


def _read(path: Path, completed: Callable[[Any], Any]) -> RunConfig:
    plain = completed(yaml.read(path))
    if any(interpolates(at, value) for at, value in walk(plain)):
        from omegaconf.errors import OmegaConfBaseException

        try:
            plain = resolve(plain)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{shortened(path)}: {told(error)}") from None
    return load(plain, lambda _path: shortened(path))


def to_yaml(value: Any) -> str:
    """Return plain data, or a RunConfig, as YAML that both `read` and Hydra can read."""
    return yaml.write(dump(value) if isinstance(value, RunConfig) else value)


def _container(composed: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf, open_dict

    with open_dict(composed):
        del composed["hydra"]
    container = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
