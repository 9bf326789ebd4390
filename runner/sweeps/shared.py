"""Share between the cells of a sweep: limiters, the budget, the cache, requests in flight, connections, local servers."""

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
        self._connected: dict[tuple[str, str | None], LM] = {}
        self._to_come: Counter[_Server] = Counter()
        self._nameless: set[tuple[str, str]] = set()

    def charge(self, runs: Iterable[RunFolder]) -> None:
        """Charge what earlier sittings have used to the budget."""
        for run in runs if self.budget else ():
            assert self.budget is not None
            for counted in _spent(run):
                self.budget.charge(**counted)

    def lend_store(self, experiment: Experiment) -> None:
        """Give an experiment the cache of its folder and settings, which stays open until `close`, before it is planned."""
        experiment.nameless = self._nameless
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
        self._to_come = Counter(server for config in configs for server in _servers(config))

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
        self._limiters[way].ask_anew()  # what was refused of an earlier cell may have been its own parameters
        return self._limiters[way]

    async def launch(self, experiment: Experiment) -> None:
        """Start the servers of the cell's models, unless another cell has started them. Raises LaunchError."""
        await experiment.launch()
        named = experiment.named
        for lm, config in ((experiment.lm, experiment.config), *((named.lms[name], own) for name, own in named.configs.items())):
            if isinstance(config.model, LocalModel):
                self._servers.setdefault(_server(config), lm)

    async def release(self, experiment: Experiment) -> None:
        """Release an experiment that asks no more. Its servers stay up for other cells, and so do its connections."""
        for lm in (experiment.lm, *experiment.named.lms.values()):
            if self._connected.setdefault(lm.channel().endpoint, lm) is not lm:
                await lm.aclose()  # it leaves the connections of its endpoint to the first LM of that endpoint
        await experiment.kill(kept=list(self._servers.values()))

    async def ended(self, config: RunConfig) -> None:
        """Note that a cell has ended. A server ends with the last cell that needs it, if all cells are known."""
        for server in _servers(config) & self._to_come.keys():
            self._to_come[server] -= 1
            if self._to_come[server] <= 0 and (holder := self._servers.pop(server, None)) is not None:
                await asyncio.to_thread(holder.kill)

    async def aclose(self) -> None:
        """Close the connections, end the servers, and release the limiters."""
        self._using.close()
        self._limiters.clear()
        for lm in self._connected.values():
            await lm.aclose()
        self._connected.clear()
        for holder in self._servers.values():
            await asyncio.to_thread(holder.kill)
        self._servers.clear()


def _servers(config: RunConfig) -> set[_Server]:
    """Return the servers on this machine that a cell needs: of its model, and of those that it asks beside."""
    return {_server(one) for one in (config, *build.named(config).values()) if isinstance(one.model, LocalModel)}


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
