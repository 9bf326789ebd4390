"""Make the cells of a sweep. Groups are composed once per choice of options; other values are set in the plain dict."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config.compose import Composition, compose
from runner.config.folders import options
from runner.config.grammar import parsed, text_of
from runner.config.interpolation import interpolates, resolve
from runner.config.load import escape, is_literal, is_open, load, unknown_key, walk
from runner.config.roles import ASIDE
from runner.config.schema import RunConfig
from runner.config.schema.sweep import Sweep as Section
from runner.config.sweepers import sweeper_of
from runner.errors import ConfigError
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.config.sweepers import Asked

UNVARIED = frozenset({"name", "budget", "execution", *ASIDE})
"""Groups of the sweep as a whole. They are the same in each of its cells."""


class Cell(msgspec.Struct, frozen=True):
    """Hold one cell: its values, by dotted key, and its config. The value of a group is the name of its option."""

    values: dict[str, Any]
    config: RunConfig


class Cells:
    """Make the cells of one base config.

    Args:
        asked: the command line. All cells share the overrides that it fixes.
        config_name: as in `compose`.
        config_dir: likewise.

    Attributes:
        base: the config with nothing varied, its section `sweep` included.
        sweeper: ``grid``, or the name of another of Hydra's sweepers.
        params: what ``hydra.sweeper.params`` varies, by key, in Hydra's grammar.
    """

    def __init__(self, asked: Asked, *, config_name: str = "config", config_dir: str | None = None) -> None:
        self._fixed = list(asked.fixed)
        self._named: dict[str, Any] = {"config_name": config_name, "config_dir": config_dir}
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._groups: dict[str, bool] = {}
        composition = compose([*asked.fixed, *asked.hydra], **self._named)
        self._bases[()] = _Base(composition)
        self.base = composition.config()
        self.sweeper = sweeper_of(composition.hydra)
        self.params = composition.params

    @property
    def composed(self) -> int:
        """The number of times that groups were composed."""
        return len(self._bases)

    def cell(self, overrides: Iterable[str]) -> Cell:
        """Return the cell of these overrides, such as ``["model=fake", "sampling.temperature=0.5"]``.

        Raises:
            ConfigError: a key does not exist or cannot be varied, or a value is not allowed.
        """
        values: dict[str, Any] = {}
        chosen: list[str] = []
        for override in overrides:
            key, value = parsed(override)
            values[key] = value
            if self._is_group(key):
                chosen.append(f"{key}={text_of(value)}")
        base = self._based(tuple(chosen))
        changes = {key: value for key, value in values.items() if not self._is_group(key)}
        return Cell(values, base.changed(changes) if changes else base.config)

    def _is_group(self, key: str) -> bool:
        found = self._groups.get(key)
        if found is None:
            refuse_unvaried(key)
            found = self._groups[key] = "." not in key and bool(options(key, self._bases[()].composition.folders))
        return found

    def _based(self, chosen: tuple[str, ...]) -> _Base:
        base = self._bases.get(chosen)
        if base is None:
            base = self._bases[chosen] = _Base(compose([*self._fixed, *chosen], **self._named))
        return base


class _Base:
    """Hold one composed choice of groups. The cells that share it are made from it."""

    def __init__(self, composition: Composition) -> None:
        self.composition = composition
        self.config = _unswept(composition.config())
        self._made: dict[tuple[str, bytes], Any] = {}
        self._interpolated = any(interpolates(path, value) for path, value in walk(composition.raw))

    def changed(self, changes: Mapping[str, Any]) -> RunConfig:
        """Return the config with these values. Other groups are reused, unless values of the config refer to each other."""
        raw = self.composition.raw
        touched = {key.partition(".")[0] for key in changes}
        interpolated = self._interpolated or any(interpolates(key, value) for key, value in changes.items())
        part = {top: copy.deepcopy(value) for top, value in raw.items() if interpolated or top in touched}
        for key, value in changes.items():
            _put(part, key, value)

        def origin(path: str) -> str:
            key = next((key for key in changes if path == key or path.startswith((f"{key}.", f"{key}["))), None)
            return self.composition.origin(path) if key is None else f"{key}={changes[key]!r}, which is varied"

        if interpolated:
            return _unswept(load(resolve(part), origin))
        loaded = load(part, origin)
        return msgspec.structs.replace(self.config, **{top: self._one(top, getattr(loaded, top)) for top in touched})

    def _one(self, top: str, group: Any) -> Any:
        """Return one object per distinct value of a group, so that what is built from it is built once for all cells."""
        return self._made.setdefault((top, msgspec.json.encode(group, order="sorted")), group)


def combinations(section: Section, varied: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the values of each cell, in order and without duplicates.

    Args:
        section: gives every combination of its grid and zip (ranges resolved to lists), and its cells.
        varied: what the command line varies. Each combination of these values is crossed with each of the above.

    Raises:
        ConfigError: `exclude` names a key that nothing varies.
    """
    listed = [*_points(section), *section.cells]
    cells = [{**cell, **chosen} for cell in listed for chosen in _product(varied)]
    _refuse_unvaried_exclusions(section, cells)
    unique: dict[bytes, dict[str, Any]] = {}
    for cell in cells:
        if not any(_matches(cell, rule) for rule in section.exclude):
            unique.setdefault(msgspec.json.encode(cell, order="sorted"), cell)
    return list(unique.values())


def _points(section: Section) -> list[dict[str, Any]]:
    """Return every combination of grid and zip: none if the section lists only cells, an empty one if it says nothing."""
    if section.cells and not section.grid and not section.zip:
        return []
    steps = [dict(zip(section.zip, step, strict=True)) for step in zip(*section.zip.values(), strict=True)] or [{}]
    return [{**point, **step} for point in _product(section.grid) for step in steps]


def _product(varied: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every combination of the values; the last key varies fastest. No keys make one empty combination."""
    return [dict(zip(varied, chosen, strict=True)) for chosen in itertools.product(*varied.values())]


def _refuse_unvaried_exclusions(section: Section, cells: Iterable[Mapping[str, Any]]) -> None:
    known = sorted({key for cell in cells for key in cell})
    for key in (key for rule in section.exclude for key in rule):
        if key not in known:
            raise ConfigError(f"sweep.exclude: {key} is not varied{suggest(key, known)}; varied: {', '.join(known)}")


def narrowed(section: Section, given: Iterable[str]) -> Section:
    """Return the section without the keys that the command line gives, with one value or several."""
    keys = set(given)

    def without(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key not in keys}

    cells = [cell for cell in map(without, section.cells) if cell]
    return msgspec.structs.replace(section, grid=without(section.grid), zip=without(section.zip), cells=cells)


def varied_keys(section: Section, varied: Iterable[str]) -> list[str]:
    """Return every key that varies, in the order in which they are written."""
    return list(dict.fromkeys([*section.grid, *section.zip, *(key for cell in section.cells for key in cell), *varied]))


def refuse_unvaried(key: str) -> None:
    """Raise ConfigError for a key that belongs to the sweep as a whole."""
    top = key.partition(".")[0]
    if top in UNVARIED:
        raise ConfigError(f"{key}: cannot be varied; {top} applies to the whole sweep")


def _unswept(config: RunConfig) -> RunConfig:
    """Return the config without its section `sweep`: a cell does not sweep itself."""
    return msgspec.structs.replace(config, sweep=Section())


def _put(plain: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path. The path must exist, or lie in a mapping that takes any key."""
    *parents, name = path.split(".")
    place: Any = plain
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if not isinstance(place, dict) or (name not in place and not is_open(path)):
        raise ConfigError(f"{unknown_key(path)} (it is varied)")
    if isinstance(value, dict) and isinstance(place.get(name), dict):
        value = {**place[name], **value}
    place[name] = escape(value) if isinstance(value, str) and is_literal(path) else value


def _matches(cell: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    return all(key in cell and cell[key] == value for key, value in rule.items())
