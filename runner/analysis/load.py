"""Finished records as Python objects: `load` makes a `Run` of a run folder and a `Sweep` of a sweep's."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.analysis import frames as tables
from runner.analysis.flat import CellFacts, RunFacts, flat_cells, sample_columns, score_names
from runner.analysis.judges import judge_of
from runner.analysis.ranking import Entrant, Standing, rank
from runner.analysis.same import Asked
from runner.errors import RecordError
from runner.records import RunFolder, Summary, SweepFolder, find_record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import pandas as pd
    import polars as pl

    from runner.records.folder import Brief, Mark
    from runner.types import Sample

CELLS = "cells"
"""The folder inside a sweep's folder that holds its cells."""


def load(run: str | Path, *, runs_dir: str | Path = "runs") -> Run | Sweep:
    """Open the record of a run or a sweep. Its samples are read on demand.

    Args:
        run: a folder, ``latest``, an experiment (its newest run), ``<experiment>/<stamp>``, or a prefix.
        runs_dir: where runs are.

    Returns:
        A `Run`, or a `Sweep` with its cells.

    Raises:
        RecordError: there is no such record, or it cannot be read.
    """
    record = find_record(str(run), Path(runs_dir))
    return Sweep(record) if isinstance(record, SweepFolder) else Run(record)


class Run:
    """The record of one run. Files are read when an attribute is first used; samples are read again each time.

    Attributes:
        folder: the run folder.
        name: ``<experiment>/<folder name>``, or ``<sweep>/<folder name>``.
    """

    def __init__(self, record: RunFolder) -> None:
        self._record = record
        self.folder = record.path
        above = record.path.parent
        self.name = f"{(above.parent if above.name == CELLS else above).name}/{record.path.name}"

    def __repr__(self) -> str:
        return f"Run({self.name!r})"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Return what the run was made from: ``manifest.json``."""
        return self._record.manifest()

    @cached_property
    def summary(self) -> Summary | None:
        """Return its numbers; None if it has none yet, because it is being played or was killed."""
        return self._record.summary()

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the config it was played with, as plain data."""
        known = self.manifest.get("config")
        return known if isinstance(known, dict) else _yaml(self._record.config_file)

    @property
    def rows(self) -> int | None:
        """Return the number of rows of its data."""
        found = self.manifest.get("data", {}).get("rows")
        return found if isinstance(found, int) else None

    @property
    def primary(self) -> str | None:
        """Return the name of its first score; None without one."""
        return next(iter(self.summary.scores), None) if self.summary else None

    def samples(self) -> Iterator[Sample]:
        """Yield every sample in the order in which they were finished; if one was retried, only its last result."""
        return self._record.samples()

    def marks(self) -> Iterator[Mark]:
        """Yield how each sample was scored, and what it was asked; faster than `samples`."""
        return self._record.marks()

    def briefs(self) -> Iterator[tuple[Sequence[int], list[Brief]]]:
        """Yield numbers and briefs of all lines: see `runner.records.folder.RunFolder.briefs`. Faster than `samples`."""
        return self._record.briefs()

    def samples_at(self, lines: Collection[int]) -> Iterator[Sample]:
        """Yield the samples of the lines with these numbers."""
        return self._record.samples_at(lines)

    @cached_property
    def asked(self) -> Asked:
        """Return what its samples were asked."""
        return Asked(self.manifest, self.config)

    def facts(self) -> RunFacts:
        """Return the source of its row in a table. Reads all samples, for their latencies."""
        times = [(one.latency_s, one.first_token_s) for one in self.samples()] if self.summary else []
        latencies, first_tokens = (
            sorted(time for time in some if time is not None) for some in zip(*times or [(None, None)], strict=True)
        )
        return RunFacts(self.name, self.manifest.get("status"), self.summary, latencies, first_tokens)

    def columns(self) -> Iterator[dict[str, list[Any]]]:
        """Yield its table, a row per sample, in parts of some hundred rows: see `runner.analysis.flat.sample_columns`.

        Messages are JSON text, as `msgspec.Raw`.
        """
        return (sample_columns(samples, self._scores) for samples in self._record.written())

    def table(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of its table, one per sample, every row with the same columns."""
        for samples in self._record.batches():
            columns = sample_columns(samples, self._scores)
            yield from (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))

    @cached_property
    def _scores(self) -> list[str]:
        """Return the names of its scores, which are columns."""
        return list(self.summary.scores) if self.summary else score_names(self.samples())

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a pandas data frame. Raises ConfigError if pandas is not installed."""
        return tables.to_pandas(self.table())

    def to_polars(self) -> pl.DataFrame:
        """Return the table as a polars data frame. Raises ConfigError if polars is not installed."""
        return tables.to_polars(self.table())


class Cell(msgspec.Struct, frozen=True):
    """One cell of a sweep.

    Attributes:
        id: 12 hex digits of the hash of its effective config.
        values: what was varied, by key.
        status: ``pending``, ``running``, ``complete``, ``incomplete``, ``failed`` or ``interrupted``.
        run: its record; None before it has one.
        problem: why it failed, or None.
    """

    id: str
    values: dict[str, Any]
    status: str
    run: Run | None = None
    problem: str | None = None

    def facts(self) -> CellFacts:
        """Return the source of its row in a table."""
        return CellFacts(self.id, self.values, self.status, self.problem, self.run.facts() if self.run else None)


class Sweep:
    """The record of a sweep: its cells, each a run.

    Attributes:
        folder: the sweep folder.
        name: ``<experiment>/<folder name>``.
        manifest: ``manifest.json``.
        keys: the keys that are varied, dotted, in order.
        primary: the name of the primary score, or None.
        direction: ``maximize`` or ``minimize``: which values of the primary score are better.
        cells: the cells, in the manifest's order.
    """

    def __init__(self, record: SweepFolder) -> None:
        self.folder = record.path
        self.name = f"{record.path.parent.name}/{record.path.name}"
        self.manifest = record.manifest()
        try:
            self.keys: list[str] = list(self.manifest["keys"])
            self.primary: str | None = self.manifest.get("primary")
            self.direction: str = self.manifest.get("direction", "maximize")
            self.cells = [_cell(self.folder, id_, facts) for id_, facts in self.manifest["cells"].items()]
        except (KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"{self.folder / 'manifest.json'} is not a sweep's: {error!r}") from None

    def __repr__(self) -> str:
        return f"Sweep({self.name!r})"

    @cached_property
    def ranking(self) -> dict[str, Standing]:
        """Return the standing of each cell, by its id, best first: see `runner.analysis.ranking`. Reads all samples."""
        cells = [entrant(cell.id, cell.run, self.primary) for cell in self.cells]
        return rank(cells, self.primary or "", lower_is_better=self.direction == "minimize")

    def table(self) -> Iterator[dict[str, Any]]:
        """Yield one row per cell, in the manifest's order: see `runner.analysis.flat.flat_cells`. The samples are read once."""
        yield from map(dict, self._rows)

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        facts = [
            CellFacts(one.id, one.values, one.status, one.problem, one.run.facts() if one.run else None, self.ranking[one.id])
            for one in self.cells
        ]
        return list(flat_cells(facts, self.keys, self.primary))

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a pandas data frame. Raises ConfigError if pandas is not installed."""
        return tables.to_pandas(self.table())

    def to_polars(self) -> pl.DataFrame:
        """Return the table as a polars data frame. Raises ConfigError if polars is not installed."""
        return tables.to_polars(self.table())


def entrant(id_: str, run: Run | None, primary: str | None) -> Entrant:
    """Return a cell as it is ranked by the score `primary`."""
    summary = run.summary if run else None
    if run is None or summary is None:
        return Entrant(id_, None, 0, 0, False, None, Asked(), list)
    score = summary.scores.get(primary or "")
    return Entrant(
        id=id_,
        mean=score.mean if score else None,
        samples=summary.rows,
        scored=summary.scored or 0,
        is_ranked=summary.is_ranked,
        data=run.manifest.get("data", {}).get("fingerprint"),
        asked=run.asked,
        marks=run.marks,
        judge=judge_of(run.manifest, primary or ""),
    )


def _cell(folder: Path, id_: str, facts: dict[str, Any]) -> Cell:
    """Open a cell. If its folder cannot be read, its `problem` says why, and the other cells stay readable."""
    run, problem = None, facts.get("problem")
    if facts.get("run"):
        try:
            run = Run(RunFolder.open(folder / facts["run"]))
        except RecordError as error:
            problem = problem or str(error)
    return Cell(id_, facts["values"], facts["status"], run, problem)


def _yaml(file: Path) -> dict[str, Any]:
    """Read the config that an earlier version recorded, whose manifest does not contain it."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RecordError(f"{file} cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}
