"""The canary's verdict: whether a run scores significantly worse than a reference run on the same rows."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.errors import ConfigError, DataError
from runner.records import RunFolder, find_run

if TYPE_CHECKING:
    from runner.config.schema import RunConfig


class Verdict(msgspec.Struct, frozen=True):
    """How a run compares with its reference.

    Attributes:
        worse: whether the scores are worse, at the level asked for.
        mean: the mean over rows of the new score less the reference's.
        p: the one-sided p-value of no row having become worse.
        rows: rows that both runs have a score for.
        score: the name of the score, the reference's first.
    """

    worse: bool
    mean: float
    p: float
    rows: int
    score: str

    def __str__(self) -> str:
        what = "significantly worse" if self.worse else "not significantly worse"
        return f"{what} than the reference: {self.score} {self.mean:+.3f} (p = {self.p:.3g}, {self.rows:,} rows)"


def is_worse(reference_folder: Path, new_folder: Path, level: float) -> Verdict:
    """Compare the first score of two runs row by row (repeats averaged) by an exact one-sided sign test.

    Rows without a score in one of the runs (an error is no wrong answer) are left out.

    Raises:
        DataError: the runs are not of the same data, or have no scored row in common.
    """
    reference, new = RunFolder.open(reference_folder), RunFolder.open(new_folder)
    if reference.manifest()["data"]["fingerprint"] != new.manifest()["data"]["fingerprint"]:
        raise DataError(f"{new.path} was played on other data than its reference {reference.path}; pin a new reference")
    score = _first_score(reference)
    was, now = _means(reference, score), _means(new, score)
    differences = [now[row] - was[row] for row in sorted(was.keys() & now.keys())]
    if not differences:
        raise DataError(f"{new.path} and its reference {reference.path} have no row with the score '{score}' in common")
    better, worse = sum(one > 0 for one in differences), sum(one < 0 for one in differences)
    p = _binomial_tail(worse, better + worse)
    return Verdict(p < 1 - level, math.fsum(differences) / len(differences), p, len(differences), score)


def pinned(config: RunConfig) -> Path:
    """The folder of the run that the config's canary is compared with.

    Raises:
        ConfigError: none is named, it has no score, or answers would come from the cache alone.
        RecordError: there is no such run.
    """
    if config.schedule.canary.reference is None:
        raise ConfigError("schedule.canary.reference: is required for a canary; name a run, for example latest")
    if config.cache.mode == "replay":
        raise ConfigError("cache.mode: a canary asks the model anew; replay would only repeat old answers")
    folder = find_run(config.schedule.canary.reference, Path(config.runs_dir))
    _first_score(folder)
    return folder.path


def asking_anew(config: RunConfig) -> RunConfig:
    """`config` with a cache that answers nothing: what the cache says, the model behind the alias has once said."""
    mode = {"rw": "refresh", "read": "off"}.get(config.cache.mode, config.cache.mode)
    return msgspec.structs.replace(config, cache=msgspec.structs.replace(config.cache, mode=mode))


def _first_score(run: RunFolder) -> str:
    summary = run.summary()
    if summary is None or not summary.scores:
        raise ConfigError(f"schedule.canary.reference: {run.path} has no score to compare")
    return next(iter(summary.scores))


def _means(run: RunFolder, score: str) -> dict[str, float]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for sample in run.samples():
        if (value := (sample.scores or {}).get(score)) is not None:
            found[sample.id].append(float(value))
    return {row: math.fsum(values) / len(values) for row, values in found.items()}


def _binomial_tail(hits: int, trials: int) -> float:
    """P(X >= hits) for a fair coin thrown `trials` times."""
    ways = sum(math.comb(trials, k) for k in range(hits, trials + 1))
    return ways / (1 << trials)
