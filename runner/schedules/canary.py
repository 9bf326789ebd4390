"""Decide whether a run scores significantly worse than a reference run on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.analysis.compare import compare
from runner.analysis.load import load
from runner.errors import ConfigError, DataError
from runner.records import RunFolder, find_run
from runner.wording.numbers import change, p_equals

if TYPE_CHECKING:
    from runner.config.schema import RunConfig


class Verdict(msgspec.Struct, frozen=True):
    """How a run compares with its reference.

    Attributes:
        worse: whether the scores are significantly worse, at the requested level.
        undecided: whether what was left out of one of the runs can turn that.
        mean: the mean over rows of the new score minus the reference's.
        p: the two-sided p-value of no difference.
        rows: how many rows have a score in both runs.
        score: the name of the score, the reference's first.
        interval: of `mean`, at the requested level; None for fewer than two rows.
    """

    worse: bool
    mean: float
    p: float
    rows: int
    score: str
    undecided: bool = False
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        what = "undecided whether it is worse" if self.undecided else f"{'' if self.worse else 'not '}significantly worse"
        found = change(self.mean, self.interval)
        return f"{what} than the reference: {self.score} {found} ({p_equals(self.p)}, {self.rows:,} rows)"


def is_worse(reference_folder: Path, new_folder: Path, level: float) -> Verdict:
    """Compare the first score of two runs row by row: see `runner.analysis.compare`.

    Rows without a score in one of the runs are left out: an error is not a wrong answer. If they can turn the verdict, it is
    undecided.

    Raises:
        DataError: the runs used different data, or have no scored row in common.
    """
    reference, new = RunFolder.open(reference_folder), RunFolder.open(new_folder)
    if reference.manifest()["data"]["fingerprint"] != new.manifest()["data"]["fingerprint"]:
        raise DataError(f"{new.path} used different data than its reference {reference.path}; pin a new reference")
    score = _first_score(reference)
    found = compare(load(reference.path), load(new.path), scores=[score], level=level)
    difference = found.difference
    if difference is None or difference.mean is None or difference.p is None:
        raise DataError(f"{new.path} and its reference {reference.path} have no row with the score '{score}' in common")
    undecided = found.verdict == "undecided"
    worse = found.verdict == "worse"
    return Verdict(worse, difference.mean, difference.p, difference.n, score, undecided, difference.ci)


def pinned(config: RunConfig) -> Path:
    """Return the folder of the run that the config's canary is compared with.

    Raises:
        ConfigError: no run is named, it has no score, or answers would come from the cache alone.
        RecordError: there is no such run.
    """
    if config.schedule.canary.reference is None:
        raise ConfigError("schedule.canary.reference: is required for a canary; name a run, for example latest")
    if config.cache.mode == "replay":
        raise ConfigError("cache.mode: a canary asks the model again; replay would only repeat old answers")
    folder = find_run(config.schedule.canary.reference, Path(config.runs_dir))
    _first_score(folder)
    return folder.path


def without_cache_reads(config: RunConfig) -> RunConfig:
    """Return `config` with a cache that answers nothing: cached answers say nothing about the model that the alias names now."""
    mode = {"rw": "refresh", "read": "off"}.get(config.cache.mode, config.cache.mode)
    return msgspec.structs.replace(config, cache=msgspec.structs.replace(config.cache, mode=mode))


def _first_score(run: RunFolder) -> str:
    summary = run.summary()
    if summary is None or not summary.scores:
        raise ConfigError(f"schedule.canary.reference: {run.path} has no score to compare")
    return next(iter(summary.scores))
