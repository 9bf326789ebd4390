"""Share between the cells of a sweep: limiters, the budget, the cache, requests in flight, servers of local models."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

from runner import build
from runner.batch.tally import Tally
from runner.config.schema.model import LocalModel
from runner.lm.flight import SingleFlight
from runner.records.spending import unrecorded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.cache import Cache
    from runner.config.schema import RunConfig
    from runner.experiment.experiment import Experiment
    from runner.limits import Limiter
    from runner.lm.lm import LM
    from runner.records import RunFolder

_Server: TypeAlias = tuple[str, str]


class Shared:
    """Lend shared parts to the experiments of cells, until the sweep ends.

    Args:
        config: the base config of the sweep; its budget covers all cells.
    """

    def __init__(self, config: RunConfig) -> None:
        self.budget = build.budget(config.budget)
        self._limiters: dict[Any, Limiter] = {}
        self._flights: dict[Any, SingleFlight[Any]] = {}
        self._using = contextlib.ExitStack()
        self._stores: dict[Any, Cache] = {}
        self._servers: dict[_Server, LM] = {}
        self._to_come: Counter[_Server] | None = None

    def charge(self, runs: Iterable[RunFolder]) -> None:
        """Charge what earlier sittings have used to the budget."""
        for run in runs if self.budget else ():
            assert self.budget is not None
            for counted in _spent(run):
                self.budget.charge(**counted)

    def lend_store(self, experiment: Experiment) -> None:
        """Give an experiment the cache of its folder and settings, which stays open until `close`."""
        if (store := experiment.lm.store) is not None:
            settings = store.folder, experiment.config.cache
            experiment.lm.store = self._stores.setdefault(settings, store)
            experiment.owns_store = False

    def close(self) -> None:
        """Close the caches."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def expect(self, configs: Iterable[RunConfig]) -> None:
        """Announce all cells that will run, so that a server ends as soon as none of them needs it."""
        self._to_come = Counter(_server(config) for config in configs if isinstance(config.model, LocalModel))

    def lend(self, experiment: Experiment) -> None:
        """Give an experiment its key, limiter and budget. Raises ConfigError if the key of its model is not set."""
        lm, config = experiment.lm, experiment.config
        lm.kwargs.update(build.access(config))
        lm.budget = self.budget
        lm.flights = self._flights.setdefault(config.cache, SingleFlight())
        lm.limiter = self._limiter(config, lm)
        experiment.named.lend(self.budget, self._limiter)

    def _limiter(self, config: RunConfig, lm: LM) -> Limiter:
        """Return the limiter of an endpoint, which the cells share."""
        way = (lm.channel().endpoint, config.limits)
        if way not in self._limiters:
            self._limiters[way] = build.limiter(config, lm)
            self._using.enter_context(self._limiters[way].using())
        return self._limiters[way]

    async def launch(self, experiment: Experiment) -> None:
        """Start the model's server, unless another cell has started it. Raises LaunchError."""
        await experiment.launch()
        if not isinstance(experiment.config.model, LocalModel):
            return
        self._servers.setdefault(_server(experiment.config), experiment.lm)

    async def release(self, experiment: Experiment) -> None:
        """Release an experiment that asks no more. A server that it has launched stays up for other cells."""
        if self._servers.get(_server(experiment.config)) is experiment.lm:
            await experiment.named.kill()
        else:
            await experiment.kill()

    async def ended(self, config: RunConfig) -> None:
        """Note that a cell has ended. Its server ends with the last cell that needs it, if all cells are known."""
        server = _server(config)
        if self._to_come is not None and server in self._to_come:
            self._to_come[server] -= 1
            if self._to_come[server] <= 0 and (holder := self._servers.pop(server, None)) is not None:
                await asyncio.to_thread(holder.kill)

    async def aclose(self) -> None:
        """End the servers, and release the limiters."""
        self._using.close()
        self._limiters.clear()
        for holder in self._servers.values():
            await asyncio.to_thread(holder.kill)
        self._servers.clear()


def _server(config: RunConfig) -> _Server:
    return config.model.name, repr((config.model, config.launch))


def _spent(run: RunFolder) -> list[dict[str, Any]]:
    """Return what a budget counts of a run: its lines (a killed sitting leaves no summary), and amounts without a line."""
    tally, apart = Tally(0), unrecorded(run)
    tally.charge(apart.spent)
    for name, spent in apart.named.items():
        tally.charge(spent, name)
    for sample, counts in run.history():
        if counts:
            tally.add(sample)
        else:
            tally.superseded(sample)
    return [tally.counted, *tally.counted_named.values()]
