"""Score the answers of a run again. The answers stay, the scores are new."""

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

    from runner.config.schema import RunConfig
    from runner.records import RunFolder
    from runner.types import Sample


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
    from runner.config.compose import read_run, to_yaml

    manifest, before = record.manifest(), record.summary()
    config = _with_scorers(record, read_run(record.config_file), overrides)
    in_place = rooted(config, manifest)
    experiment = Experiment(in_place, record, recorded_overrides(record), Parts.of(in_place))
    if manifest["data"]["fingerprint"] != experiment.dataset.fingerprint:
        raise RecordError(f"{record.path}: the data has changed since this run began, so its answers cannot be scored again")
    record.rewrite(_scored(experiment))
    record.write_config(to_yaml(config))
    record.write_manifest(rescored(manifest, config, in_place))
    if before:
        experiment.restore(before)
    summary = experiment.finish()
    if before and before.status == "interrupted":
        summary = msgspec.structs.replace(summary, status=before.status, problem=before.problem)
        record.write_summary(summary)
    return RunResult(record.path, summary)


def _with_scorers(record: RunFolder, config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return `config` with the scorers that `overrides` choose. Raises ConfigError if one of them concerns another group."""
    from runner.config.compose import compose

    if not overrides:
        return config
    if other := [override for override in overrides if not override.lstrip("+~").startswith("scoring")]:
        raise ConfigError(f"'{other[0]}' does not concern scoring; `ostinato score` only changes the scorers")
    if any(override.startswith("scoring=") for override in overrides):  # another option of the group
        chosen = compose(list(overrides))
    else:  # other values of the recorded option
        chosen = compose(list(overrides), config_name=record.config_file.stem, config_dir=str(record.path))
    return msgspec.structs.replace(config, scoring=chosen.config().scoring)


def _scored(experiment: Experiment) -> list[Sample]:
    """Score every sample of the record, count all of them, and return them in the record's order."""
    rows = {row.id: row for row in experiment.dataset}
    samples = []
    for sample, counts in experiment.record.history():
        samples.append(sample)
        if not counts:  # a retry has replaced it, and its cost stays on record
            experiment.tally.superseded(sample)
            continue
        if sample.error is not None and sample.error.code == "scoring":
            sample.status, sample.error = status_of(sample.finish_reason, empty=not sample.output), None
        if sample.id in rows:
            experiment.asker.score(sample, rows[sample.id])
        experiment.tally.add(sample)
    return samples
