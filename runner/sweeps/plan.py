"""Plan a sweep: compose and check its cells. Nothing is made on disk, and nothing is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.config.cells import Cell, Cells, combinations, narrowed, refuse_unvaried, varied_keys
from runner.config.load import dump
from runner.config.sweepers import GRID, multirun, split
from runner.errors import ConfigError
from runner.experiment.prepared import Prepared, Sources, prepare
from runner.secrets import redact
from runner.sweeps.identity import Identities, sha256
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runner.config.schema import RunConfig
    from runner.config.schema.sweep import Sweep as Section
    from runner.config.sweepers import Asked


class Plan:
    """The cells that a command line asks for, as far as they are known before the sweep runs.

    Attributes:
        asked: the command line.
        config: the base config, in which nothing varies.
        section: its section `sweep`, without the keys that the command line sets.
        keys: the varied keys, in order.
        cells: the cells by id: all of a grid, or those that a search has proposed so far.
        prepared: the experiments of these cells, by id.
        sources: the data that they share.
    """

    def __init__(self, overrides: Sequence[str], *, config_name: str = "config", config_dir: str | None = None) -> None:
        self.overrides = list(overrides)
        self.named: dict[str, Any] = {"config_name": config_name, "config_dir": config_dir}
        self.asked: Asked = split(overrides)
        self._cells = Cells(self.asked, **self.named)
        self.sources = Sources()
        base = prepare(self._cells.base, sources=self.sources)
        self.config: RunConfig = base.config
        given = {override.partition("=")[0].lstrip("+") for override in self.asked.fixed}
        params = {key: f"{key}={values}" for key, values in self._cells.params.items() if key not in given}
        self.asked = msgspec.structs.replace(self.asked, varied=params | self.asked.varied)
        self.section: Section = narrowed(self.config.sweep, [*given, *self.asked.varied])
        self.keys = varied_keys(self.section, self.asked.varied)
        for key in self.keys:
            refuse_unvaried(key)
        if not self.keys:
            raise ConfigError("nothing varies: give a key several values, for example sampling.temperature=0,0.5,1")
        self._identities = Identities(self.sources.once)
        self._base = base
        self.name = base.name
        self.primary = _primary(self.config)
        self.cells: dict[str, Cell] = {}
        self._taken: dict[tuple[str, ...], str] = {}
        self.prepared: dict[str, Prepared] = {}
        if self.is_grid:
            self.propose(self._collect, folder=Path(self.config.runs_dir))

    @property
    def is_grid(self) -> bool:
        """Return whether all cells are known before the sweep runs."""
        return self._cells.sweeper == GRID

    @property
    def sweeper(self) -> str:
        """The name of the sweeper, which proposes the cells."""
        return self._cells.sweeper

    @property
    def composed(self) -> int:
        """Times that groups were composed so far."""
        return self._cells.composed

    @property
    def digest(self) -> str:
        """The hash of the base config, the varied keys and the sweeper. It identifies the sweep."""
        whole = self._identities.of(self._base, {})
        return sha256([whole, sorted(self.keys), self.sweeper])

    def take(self, jobs: Iterable[Sequence[str]]) -> list[str]:
        """Add the cells that a sweeper proposes, and return their ids. Raises ConfigError, DataError."""
        return [self._taken.get(tuple(job)) or self._take(job) for job in jobs]

    def propose(self, launch: Callable[[Sequence[Sequence[str]]], Sequence[float | None]], *, folder: Path) -> None:
        """Have the sweeper propose cells to `launch` until it is done."""
        multirun(self.asked, self.section, launch, combine=combinations, folder=folder, **self.named)

    def as_yaml(self) -> str:
        """Return the content of ``sweep.yaml``: the overrides, the varied keys and the base config."""
        from runner.config.compose import to_yaml

        return to_yaml(
            {
                "format": 1,
                "overrides": [redact(override) for override in self.overrides],
                **self.named,
                "varied": {key: redact(override) for key, override in self.asked.varied.items()},
                "sweep": msgspec.to_builtins(self.section),
                "config": dump(self.config),
            }
        )

    def _take(self, job: Sequence[str]) -> str:
        cell = self._cells.cell(job)
        prepared = prepare(cell.config, sources=self.sources)
        key = self._taken[tuple(job)] = self._identities.of(prepared, cell.values)[:12]
        self.cells.setdefault(key, msgspec.structs.replace(cell, config=prepared.config))
        self.prepared.setdefault(key, prepared)
        return key

    def _collect(self, jobs: Sequence[Sequence[str]]) -> list[None]:
        for key in self.take(jobs):
            self._check(self.prepared[key])
        return [None] * len(jobs)

    def _check(self, prepared: Prepared) -> None:
        """Raise ConfigError or DataError for a cell that could not begin."""
        once, data, config = self.sources.once, prepared.dataset, prepared.config
        once.get("scorers", (config.scoring, config.data), lambda: build.scorers(config))
        adapter = once.get("adapter", (config.prompt, config.adapter, config.model), lambda: build.adapter(config))
        if once.get("solver", (config.solver, config.limits), lambda: build.solver(config)) is None:
            once.get("first", (adapter, data), lambda: adapter.format(next(iter(data))))
        once.get("lm", (config.model, config.sampling, config.launch), lambda: build.lm(config).request(prompt="").model)


def _primary(config: RunConfig) -> str | None:
    """Return the score that cells are ranked by. Raises ConfigError if the config has no such score."""
    names = list(build.scorers(config))
    wanted = config.sweep.primary
    if wanted is not None and wanted not in names:
        raise ConfigError(f"sweep.primary: there is no score '{wanted}'{suggest(wanted, names)}; {', '.join(names) or 'none'}")
    return wanted or (names[0] if names else None)
