"""Score the answers of a sweep again: those of each of its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.errors import ConfigError
from runner.experiment.experiment import report_or_warn
from runner.experiment.rescore import Rescored, score
from runner.sweeps.ending import write_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.records import SweepFolder


def score_sweep(sweep: SweepFolder, overrides: Sequence[str] = ()) -> dict[str, Rescored]:
    """Score the answers of all cells again, by their own scorers or by those that `overrides` choose.

    The sweep's tables and its report are written again. If the primary score is gone, the first one takes its place.

    Args:
        sweep: the sweep.
        overrides: as in `runner.experiment.rescore.score`.

    Returns:
        What has changed, by the id of the cell; cells without a summary are not in it.

    Raises:
        RecordError: the sweep is being played, or the data of a cell has changed.
        ConfigError, DataError: the scorers cannot be built, or the cells vary what the overrides set.
    """
    sweep.lock()
    try:
        manifest = sweep.read()
        given = {override.lstrip("+~").partition("=")[0] for override in overrides}
        if clash := [key for key in manifest.keys if key in given or ("scoring" in given and key.startswith("scoring."))]:
            raise ConfigError(
                f"{clash[0]}: the cells of this sweep vary it; score them one by one: ostinato score {sweep.path}/cells/..."
            )
        runs = {id_: run for id_, cell in manifest.cells.items() if (run := sweep.run_of(cell)) and run.summary()}
        found = {id_: score(run.path, overrides) for id_, run in runs.items()}
        names = [name for result in found.values() for name in result.summary.scores]
        if names and manifest.primary not in names:
            manifest.primary = names[0]
            sweep.write(manifest)
        write_tables(sweep)
        report_or_warn(sweep.path)
    finally:
        sweep.close()
    return found
