"""Forecast a sweep cell by cell. What cells have in common is computed once."""

from __future__ import annotations

from itertools import compress, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.batch.engine import LOOKUP_BATCH, plan
from runner.cache import Cache, request_key
from runner.errors import DataError
from runner.experiment import targets
from runner.experiment.estimate import expected, reasks, verdict
from runner.experiment.judging import foretold, together
from runner.experiment.named import NamedModels
from runner.experiment.parts import Parts
from runner.experiment.served import pin
from runner.experiment.train_first import foreseen
from runner.experiment.work import Estimate
from runner.records import SweepFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.adapters import Adapter, Formatted
    from runner.batch.asker import Asker, Slot
    from runner.config.schema import RunConfig
    from runner.data import Dataset
    from runner.sweeps.plan import Plan
    from runner.types import Sample


class CellOutlook(msgspec.Struct, frozen=True, kw_only=True):
    """The forecast of one cell.

    Attributes:
        cell: its id.
        values: the varied keys and their values.
        model: the model.
        samples: rows × repeats.
        recorded: whether the sweep's folder already has the complete cell, so that nothing is asked.
        cache_hits: samples that the cache answers.
        failing: samples that fail without a request, because their prompt cannot be made.
        shared: samples with the request of an earlier cell, which the cache answers once that cell is done.
        owed: samples that the model has to be asked for.
        estimate: of the owed samples.
        not_sent: parameters of the cell's config that its model does not take.
    """

    cell: str
    values: dict[str, Any]
    model: str
    samples: int
    recorded: bool = False
    cache_hits: int = 0
    failing: int = 0
    shared: int = 0
    owed: int = 0
    estimate: Estimate = Estimate()
    not_sent: dict[str, Any] = {}


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """The forecast of a sweep; made by `outlook`. The estimate is of all cells; ``budget`` is as from `verdict`.

    ``targets`` says which targets cannot be scored; None: all of them can be.
    """

    name: str
    keys: list[str]
    cells: list[CellOutlook]
    estimate: Estimate
    budget: dict[str, Any]
    targets: str | None = None

    def total(self, name: str) -> int:
        """Return the sum of a count over all cells."""
        return sum(int(getattr(cell, name)) for cell in self.cells)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        counts = ("samples", "recorded", "cache_hits", "failing", "shared", "owed")
        cells = []
        for cell in self.cells:
            facts = msgspec.to_builtins(cell)
            cells.append(facts | facts.pop("estimate"))
        total = {"cells": len(cells), **{name: self.total(name) for name in counts}, **msgspec.to_builtins(self.estimate)}
        return {
            "name": self.name,
            "keys": self.keys,
            "cells": cells,
            "total": total,
            "budget": self.budget,
            "targets": self.targets,
        }


def outlook(planned: Plan) -> Outlook:
    """Forecast what `sweep` would do with this plan. Makes nothing on disk, starts nothing, sends nothing.

    Raises:
        ConfigError, DataError: a cell could not begin.
        CacheError: the cache cannot be used.
    """
    forecaster = _Forecaster(planned)
    try:
        cells = [forecaster.cell(key) for key in planned.cells]
    finally:
        forecaster.close()
    whole = _sum([cell.estimate for cell in cells])
    return Outlook(
        name=planned.name,
        keys=planned.keys,
        cells=cells,
        estimate=whole,
        budget=verdict(build.budget(planned.config.budget), whole),
        targets=_unusable(planned),
    )


def _unusable(planned: Plan) -> str | None:
    """Say which targets cannot be used, once for all cells with the same data and scorers."""
    for prepared in planned.prepared.values():
        config, data = prepared.in_place, prepared.dataset
        found = planned.sources.once.get(
            "targets",
            (data, config.scoring),
            lambda data=data, config=config: targets.told(data, build.scorers(config)),  # type: ignore[misc]
        )
        if found:
            return found
    return None


class _Forecaster:
    """Forecast one cell after the other."""

    def __init__(self, planned: Plan) -> None:
        self._cells = planned.cells
        self._prepared = planned.prepared
        self._once = planned.sources.once
        self._stores: dict[Any, Cache] = {}
        self._asked: set[str] = set()
        record = SweepFolder.find(Path(planned.config.runs_dir), planned.name, planned.digest)
        known = record.read().cells if record else {}
        self._complete = {key for key, cell in known.items() if cell.status == "complete"}

    def close(self) -> None:
        """Close the caches."""
        for store in self._stores.values():
            store.close()

    def cell(self, key: str) -> CellOutlook:
        """Forecast this cell, with what its judges would be asked."""
        found, config = self._cell(key), self._prepared[key].in_place
        if found.recorded or not any(build.scoring_models(config)):
            return found
        parts = Parts.of(config, self._prepared[key].dataset)
        assert parts.named is not None
        slots = [(row, repeat) for row in parts.dataset for repeat in range(config.sampling.repeats)]
        try:
            due = plan(parts.asker(), slots, (), lambda _samples: None)
            judges = foretold(parts.asker(), parts.scorers, parts.named.lms, compress(slots, due))
        finally:
            parts.named.close()
            parts.close()
        return msgspec.structs.replace(found, estimate=together(found.estimate, judges.values()))

    def _cell(self, key: str) -> CellOutlook:
        trained, values = foreseen(self._prepared[key]), self._cells[key].values
        config, dataset = trained.config, trained.dataset
        lm, repeats = build.lm(config), config.sampling.repeats
        samples = len(dataset) * repeats
        if key in self._complete:
            return CellOutlook(cell=key, values=values, model=lm.model, samples=samples, recorded=True)
        lm.store = self._store(config)
        pin(config, lm, ask=False)
        adapter = self._once.get("adapter", (config.prompt, config.adapter, config.model), lambda: build.adapter(config))
        solver, conversation = build.solver(config), build.conversation(config, adapter)
        if solver is not None or conversation is not None:
            parts = Parts(dataset, {}, lm, adapter, named=NamedModels(config), solver=solver, conversation=conversation)
            try:
                return self._from_cache(key, parts.asker(), config, dataset)
            finally:
                parts.close()
        asker = Parts(dataset, {}, lm, adapter).asker()
        said = self._once.get("formatted", (adapter, dataset), lambda: _formatted(adapter, dataset))
        keys = [request_key(asker.request(turn, repeat)) if turn else None for turn in said for repeat in range(repeats)]
        hits = self._hits(lm.store, keys)
        failing = keys.count(None)
        if hits and reasks(config):  # the adapter may still ask again after a cached first answer
            return self._from_cache(key, asker, config, dataset)
        shared = self._shared(lm.store, keys, hits)
        owed = [key is not None and key not in hits and key not in shared for key in keys]
        slots = ((row, repeat) for row in dataset for repeat in range(repeats))
        if all(owed):
            likely = self._whole(config, said, asker, list(slots))
        else:
            likely = expected(asker, compress(slots, owed), reasks=reasks(config))
        return CellOutlook(
            cell=key,
            values=values,
            model=lm.model,
            samples=samples,
            cache_hits=sum(key in hits for key in keys),
            failing=failing,
            shared=sum(key in shared for key in keys),
            owed=sum(owed),
            estimate=likely,
            not_sent=asker.lm.not_sent,
        )

    def _store(self, config: RunConfig) -> Cache | None:
        if config.cache.mode == "off":
            return None
        if config.cache not in self._stores:
            self._stores[config.cache] = build.cache(config.cache)
        return self._stores[config.cache]

    @staticmethod
    def _hits(store: Cache | None, keys: Sequence[str | None]) -> set[str]:
        """Return the keys that the cache has an answer to."""
        found: set[str] = set()
        if store is not None and store.reads and store.folder.exists():
            stream = (key for key in keys if key is not None)
            while batch := list(islice(stream, LOOKUP_BATCH)):
                found |= store.get_many(batch).keys()
        return found

    def _shared(self, store: Cache | None, keys: Sequence[str | None], hits: set[str]) -> set[str]:
        """Return the keys that an earlier cell asks, if the cache will have their answers."""
        if store is None or not (store.reads and store.writes):
            return set()
        asked = {key for key in keys if key is not None and key not in hits}
        shared = asked & self._asked
        self._asked |= asked
        return shared

    def _whole(self, config: RunConfig, said: list[Any], asker: Asker, slots: list[Slot]) -> Estimate:
        """Estimate a cell that asks all its rows: once for all cells whose requests have the same length."""
        sources = (said, config.model, config.adapter)
        what = f"estimate {config.sampling.max_tokens} {config.sampling.repeats}"
        return self._once.get(what, sources, lambda: expected(asker, slots, reasks=reasks(config)))

    def _from_cache(self, key: str, asker: Asker, config: RunConfig, dataset: Dataset) -> CellOutlook:
        """Forecast a cell by answering all its slots from the cache."""
        ended: list[Sample] = []
        slots = [(row, repeat) for row in dataset for repeat in range(config.sampling.repeats)]
        due = plan(asker, slots, (), ended.extend)
        likely = expected(asker, compress(slots, due), reasks=reasks(config))
        hits = sum(sample.cache == "hit" for sample in ended)
        return CellOutlook(
            cell=key,
            values=self._cells[key].values,
            model=asker.lm.model,
            samples=len(slots),
            cache_hits=hits,
            failing=len(ended) - hits,
            owed=likely.samples,
            estimate=likely,
            not_sent=asker.lm.not_sent,
        )


def _formatted(adapter: Adapter, dataset: Dataset) -> list[Formatted | None]:
    """Format each row; None if its prompt cannot be made."""

    def said() -> Iterator[Formatted | None]:
        for row in dataset:
            try:
                yield adapter.format(row)
            except DataError:
                yield None

    return list(said())


def _sum(parts: Sequence[Estimate]) -> Estimate:
    """Add estimates. A number that is unknown in one of them is unknown in the sum."""

    def added(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if None in values else sum(values)

    return Estimate(**{name: added(name) for name in Estimate.__struct_fields__})
