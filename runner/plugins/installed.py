"""Find what installed packages declare as entry points, and make it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from runner.errors import ConfigError
from runner.system.packages import entry_points
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

Part: TypeAlias = Literal["scorer", "data source", "adapter", "solver", "transport"]

GROUPS: dict[Part, tuple[str, str]] = {
    "scorer": ("ostinato.scorers", "scoring.name"),
    "data source": ("ostinato.sources", "data.source"),
    "adapter": ("ostinato.adapters", "adapter.name"),
    "solver": ("ostinato.solvers", "solver.name"),
    "transport": ("ostinato.transports", "model.transport"),
}
"""The entry point group of each part, in which packages declare ``name = "its.module:something"``, and the config's key."""


class Added(NamedTuple):
    """A part that a package has made.

    Attributes:
        made: what its entry point returned.
        where: the part, the entry point and the package, for messages.
        distribution: the package and its version.
    """

    made: Any
    where: str
    distribution: str


def distribution(part: Part, name: str) -> str | None:
    """Return the name of the package that declares `name`; None if none does."""
    entry = entry_points(GROUPS[part][0]).get(name)
    return entry.dist.name if entry is not None and entry.dist is not None else None


def add(part: Part, name: str, params: Mapping[str, Any], *given: Any, besides: tuple[str, ...] = ()) -> Added:
    """Call what the entry point `name` names with `given` and `params`.

    Args:
        part: what it adds.
        name: the entry point's name.
        params: keyword arguments, from the config.
        given: arguments that come first.
        besides: other names that the config's key takes, for the message.

    Raises:
        ConfigError: no installed package declares it, or it cannot be made.
    """
    group, key = GROUPS[part]
    known = entry_points(group)
    if name not in known:
        listed = f"installed: {', '.join(sorted(known))}" if known else f"no installed package declares {group}"
        others = f"; without a package: {', '.join(besides)}" if besides else ""
        raise ConfigError(f"{key}: there is no {part} {name!r}{suggest(name, [*besides, *known])} ({listed}{others})")
    entry = known[name]
    told = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
    where = f"{part} {name!r} ({entry.value}, from {told})"
    try:
        made = entry.load()(*given, **params)
    except Exception as error:  # boundary: another package's code may raise anything; the error names the package
        raise ConfigError(f"{where} cannot be made: {type(error).__name__}: {error}") from error
    return Added(made, where, told)
