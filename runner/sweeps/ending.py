"""Write what a sweep leaves beside its cells: tables, and a warning if its cells were answered by different models."""

from __future__ import annotations

import io
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING

from runner.analysis.export import Format, export
from runner.analysis.load import load
from runner.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.records import SweepFolder
    from runner.records.sweep import CellRecord

TABLES: tuple[Format, ...] = ("csv", "parquet")
"""Formats of the table in a sweep's folder."""


def write_tables(record: SweepFolder) -> None:
    """Write the tables of a sweep's cells into its folder."""
    told = load(record.path)
    for form in TABLES:
        content = io.BytesIO()
        try:
            export(told, form, content)
        except ConfigError as error:  # Parquet needs an optional library
            record.log(f"no table.{form} was written: {error}")
        else:
            record.write_table(f"table.{form}", content.getvalue())


def compare_weights(record: SweepFolder, cells: Iterable[CellRecord]) -> None:
    """Warn if the cells, over all sittings, were answered by different weights behind one address and name."""
    served: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for cell in cells:
        if (run := record.run_of(cell)) is not None:
            model = run.manifest().get("model", {})
            address, _, weights = str(model.get("endpoint") or "").partition("#")
            if weights:
                served[str(model.get("requested")), address].add(weights)
    for (name, address), several in served.items():
        if len(several) > 1:
            told = f"{record.path}: {address} served different weights for {name}: {', '.join(sorted(several))}"
            record.log(told)
            warnings.warn(f"{told}; its cells are not comparable", stacklevel=2)
