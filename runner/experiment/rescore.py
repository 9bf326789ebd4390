"""Scoring the answers of a run again: the answers stay, the scores are new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.batch.asker import status_of
from runner.errors import ConfigError, RecordError
from runner.experiment.drift import rescored
from runner.experiment.experiment import Experiment, recorded_overrides
from runner.experiment.files import rooted
from runner.experiment.parts import Parts
from runner.experiment.run import RunResult
from runner.records import find_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.records import RunFolder


def score(run: str | Path, overrides: Sequence[str] = (), *, runs_dir: str | Path = "runs") -> RunResult:
    """Score the answers of a run again, by its own scorers or by those that `overrides` choose. No model is asked.

    Only the scores change in the record, and the scorers in its ``config.yaml``.

    Args:
        run: a run folder, or a run's name as `load` takes it (``latest``, an experiment, ``<experiment>/<stamp>``, a prefix).
        overrides: Hydra overrides of the group `scoring`, such as ``["scoring=f1"]``; none: the run's own scorers.
        runs_dir: where runs are.

    Returns:
        The record, with its new summary.

    Raises:
        RecordError: there is no such run, or its data has changed since.
        ConfigError, DataError: the scorers cannot be built, or the data is gone.
    """
    record = find_run(str(run), Path(runs_dir))
    record.lock()
    try:
        return _rescored(record, overrides)
    finally:
        record.close()


def _rescored(record: RunFolder, overrides: Sequence[str]) -> RunResult:
    from runner.config.compose import compose, read, to_yaml

    folder = record.path
    manifest = record.manifest()
    config = read(record.config_file)
    if overrides:
        if other := [override for override in overrides if not override.lstrip("+~").startswith("scoring")]:
            raise ConfigError(f"'{other[0]}' does not concern scoring; `ostinato score` only changes the scorers")
        anew = any(override.startswith("scoring=") for override in overrides)  # another option, or other values of the same
        base = {} if anew else {"config_dir": str(folder), "config_name": record.config_file.stem}
        config = msgspec.structs.replace(config, scoring=compose(list(overrides), **base).config().scoring)
    in_place = rooted(config, manifest)
    experiment = Experiment(in_place, record, recorded_overrides(record), Parts.of(in_place))
    if manifest["data"]["fingerprint"] != experiment.dataset.fingerprint:
        raise RecordError(f"{folder}: the data has changed since this run began, so its answers cannot be scored again")
    before = record.summary()
    rows = {row.id: row for row in experiment.dataset}
    samples = []
    for sample, counts in record.history():
        samples.append(sample)
        if not counts:  # it was asked again since: what it cost stays on record
            experiment.tally.superseded(sample)
            continue
        failed_scoring = sample.error is not None and sample.error.code == "scoring"
        if failed_scoring:
            sample.status, sample.error = status_of(sample.finish_reason), None
        if sample.status in ("ok", "truncated", "invalid") and sample.id in rows:
            experiment.asker.score(sample, rows[sample.id])
        experiment.tally.add(sample)
    record.rewrite(samples)
    record.write_config(to_yaml(config))
    record.write_manifest(rescored(manifest, config, in_place))
    if before:
        experiment.restore(before)
    summary = experiment.finish()
    if before and before.status == "interrupted":
        summary = msgspec.structs.replace(summary, status=before.status, problem=before.problem)
        record.write_summary(summary)
    return RunResult(record.path, summary)
