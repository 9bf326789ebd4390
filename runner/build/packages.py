"""Tell which installed packages add something to a run, besides its scorers, which tell for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import plugins
from runner.config import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.plugins import Part


def packages(config: schema.RunConfig) -> list[str]:
    """Return the names of the packages whose data source, adapter, solver or transport a run uses."""
    found = (plugins.distribution(part, name) for part, name in _used(config))
    return sorted({name for name in found if name is not None})


def _used(config: schema.RunConfig) -> Iterator[tuple[Part, str]]:
    if isinstance(config.data, schema.data.PluginData):
        yield "data source", config.data.source
    if isinstance(config.adapter, schema.request.PluginAdapter):
        yield "adapter", config.adapter.name
    if isinstance(config.solver, schema.solver.PluginSolver):
        yield "solver", config.solver.name
    transport = getattr(config.model, "transport", "auto")
    if transport not in schema.model.TRANSPORTS:
        yield "transport", transport
