"""Find the pipeline that a config means: check it, look for a folder with the same inputs, and name the inputs of each stage."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.config.compose import read
from runner.config.roles import adjusted_like, config_hash, identity_hash
from runner.errors import ConfigError, RecordError
from runner.experiment.files import digests_of
from runner.experiment.prepared import prepare
from runner.experiment.train_first import untrained
from runner.finetune.jobs.spec import canonical
from runner.records import find_run
from runner.records.pipeline import PipelineFolder

if TYPE_CHECKING:
    from runner.config.schema import RunConfig
    from runner.experiment.prepared import Prepared


def located(config: RunConfig) -> tuple[Prepared, RunConfig, PipelineFolder | None]:
    """Prepare a pipeline, and look for its folder.

    Returns:
        The experiment, whose training rows are read; its config as the pipeline began with it, except for the run that it learns
        from; and the pipeline's folder, None if it has none.

    Raises:
        ConfigError, DataError, RecordError: the pipeline could not begin.
    """
    prepared = prepare(config)
    check_pipeline(prepared)
    prepared = prepared.replace(name=prepared.name)
    begun, record = _found(prepared.config)
    prepared = _sourced(prepared, record.read().source if record else None)
    _ = prepared.training  # reads and checks the rows before a folder is made
    return prepared, begun, record


def _found(config: RunConfig) -> tuple[RunConfig, PipelineFolder | None]:
    """Find the newest pipeline with the same inputs, whatever its budget, limits and launch were.

    Returns:
        `config` with the adjustable groups that the pipeline began with, and its folder; `config` itself and None if there is
        no such pipeline.
    """
    runs_dir, name, digest = Path(config.runs_dir), config.name or "", config_hash(config)
    for path in PipelineFolder.paths_of(runs_dir, name, digest):
        if (record := PipelineFolder.open(path)).read().digest == digest:
            return config, record
    for path in PipelineFolder.paths_of(runs_dir, name):
        with contextlib.suppress(ConfigError, RecordError):  # written by another version, or damaged
            begun = read(path / "config.yaml")
            if identity_hash(begun) == identity_hash(config):
                return adjusted_like(config, begun), PipelineFolder.open(path)
    return config, None


def _sourced(prepared: Prepared, source: str | None) -> Prepared:
    """Fix the run to learn from by its full name: ``latest`` changes as soon as the baseline has run.

    Args:
        prepared: whose ``finetune.data.from_run`` may be any name of a run.
        source: the name that an earlier sitting has found for it.

    Raises:
        RecordError: there is no such run.
    """
    finetune = prepared.config.finetune
    assert finetune is not None
    data = finetune.data
    if data.from_run is None:
        return prepared
    if source is None:
        run = find_run(data.from_run, Path(prepared.config.runs_dir)).path
        source = f"{run.parent.name}/{run.name}"
    pinned = msgspec.structs.replace(data, from_run=source)
    return prepared.replace(finetune=msgspec.structs.replace(finetune, data=pinned))


def check_pipeline(prepared: Prepared) -> None:
    """Raise ConfigError if no pipeline can be made of the config."""
    config = prepared.config
    if config.finetune is None:
        raise ConfigError(
            "a pipeline trains a model, but finetune is not set: add finetune=default finetune.data.path=..., "
            "or play the shipped example: experiment=tickets_finetune"
        )
    names = list(build.scorers(config))
    if not names:
        raise ConfigError("scoring=none: a pipeline compares scores; choose a scorer")
    cluster, columns = config.gate.cluster, prepared.dataset.columns
    if cluster is not None and cluster not in columns:
        raise ConfigError(f"gate.cluster: the data has no column '{cluster}'; it has {', '.join(columns)}")
    if config.gate.metric is not None and config.gate.metric not in names:
        raise ConfigError(f"gate.metric: there is no score '{config.gate.metric}'; there is {', '.join(names)}")


def metric_of(config: RunConfig) -> str:
    """Return the score that decides: ``gate.metric``, else the first."""
    return config.gate.metric or next(iter(build.scorers(config)))


def keys_of(prepared: Prepared, begun: RunConfig) -> dict[str, str]:
    """Hash what each stage is made from: the data, the settings, and through them the stages before it.

    Args:
        prepared: the experiment.
        begun: its config, with the adjustable groups as they were when the pipeline began: a larger budget repeats no stage.
    """
    config, training, rows = prepared.config, prepared.training, prepared.dataset.fingerprint
    base = adjusted_like(untrained(prepared).config, begun)
    data = _key(msgspec.to_builtins(training.spec.data), training.source)
    baseline = _key(config_hash(base), rows, digests_of(base))
    train = _key(training.spec.job)
    tuned = _key(baseline, train)
    compared = _key(baseline, tuned, metric_of(config), config.gate.level, config.gate.cluster)
    return {
        "data": data,
        "validate": _key(data, rows),
        "baseline": baseline,
        "train": train,
        "launch": tuned,
        "tuned": tuned,
        "compare": compared,
        "register": _key(compared, config.gate.min_gain, config.alias),
        "kill": tuned,
    }


def _key(*parts: Any) -> str:
    return hashlib.sha256(canonical(parts)).hexdigest()
