"""Compare runs on the rows they share: differences with their errors, a verdict, and the rows to inspect."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from runner.analysis.changes import Method, ScoreChange, Verdict, change, judged
from runner.analysis.corrected_pairs import CorrectedChange, corrected_change
from runner.analysis.judges import differ
from runner.analysis.pairs import Flip, Pairs, Side, Source
from runner.errors import ConfigError, RecordError
from runner.stats.stats import RESAMPLES, Paired, quantile
from runner.wording.differences import differences

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence

    from runner.analysis.load import Run

_BESIDE = ("name", "runs_dir", "execution", "expect")
"""Config keys that do not change what is asked."""

_NAMES = ("A", "B")
_SHOWN_IDS = 5
_NOT_SENT = "not sent"


class Measure(msgspec.Struct, frozen=True):
    """A measure beside the scores, over the samples that both runs answered; None: unknown for some of them."""

    a: float | None
    b: float | None
    difference: float | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A and B on the samples they share. Counts are of samples (rows × repeats).

    Attributes:
        a, b: the names of the runs; A is the reference.
        level: the confidence level of intervals and verdicts.
        primary: the score that `verdict`, `difference` and `flips` are about; None when the runs share no score.
        answered: samples that both runs answered; everything below is about these.
        errors_a, errors_b: samples in common that failed, and so are in no score.
        only_a, only_b: samples that only one run has; `only_a_ids`, `only_b_ids` are the first few of their rows.
        changed: samples whose answers differ.
        same: samples of B that are an answer of A as well (see `runner.analysis.same`): they are not independent.
        scores: by name.
        corrected: differences that are corrected for the errors of a judge, by labels of people, of different judges too;
            verdicts are about raw scores.
        missing: scores that only one of the runs has.
        measures: ``prompt_tokens``, ``completion_tokens`` and ``price_usd`` (what the answers cost, those from the cache
            included) per sample; ``latency_p50_s`` and ``latency_p95_s`` over samples that were not answered from the cache.
        flips: samples to look at, losses first.
        config_changes, data_changes: how the runs were set up differently.
        judges: scores without a verdict, because different judges gave them, and how these differ.
    """

    a: str
    b: str
    level: float
    primary: str | None
    answered: int
    errors_a: int
    errors_b: int
    only_a: int
    only_b: int
    only_a_ids: list[str]
    only_b_ids: list[str]
    changed: int
    same: int
    scores: dict[str, ScoreChange]
    missing: list[str]
    measures: dict[str, Measure]
    flips: list[Flip]
    config_changes: list[str]
    data_changes: list[str]
    corrected: dict[str, CorrectedChange] = {}
    judges: dict[str, list[str]] = {}

    @property
    def difference(self) -> Paired | None:
        """Return B - A in the primary score, with ``mean``, ``ci`` and ``p``; None without a score."""
        return self.scores[self.primary].difference if self.primary is not None else None

    @property
    def verdict(self) -> Verdict | None:
        """Return the verdict on B against A in the primary score; None if there was nothing to compare."""
        return self.scores[self.primary].verdict if self.primary is not None else None

    @property
    def worse(self) -> list[str]:
        """Return the scores in which B is significantly worse."""
        return [name for name, change in self.scores.items() if change.verdict == "worse"]

    @property
    def undecided(self) -> bool:
        """Return whether a verdict is missing: there is no common score, no sample has it in both, or its bounds disagree."""
        return not self.scores or any(change.verdict in (None, "undecided") for change in self.scores.values())

    @property
    def turned(self) -> list[str]:
        """Return the scores whose verdict what was left out can turn."""
        return [name for name, change in self.scores.items() if change.verdict == "undecided"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, with the verdict and the difference."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return {"verdict": self.verdict, "difference": msgspec.to_builtins(self.difference), **plain}


def compare(  # noqa: PLR0913 - as compare_all, with two runs
    a: Source,
    b: Source,
    *,
    scores: Sequence[str] | None = None,
    level: float = 0.95,
    clusters: Mapping[str, Hashable] | None = None,
    lower_is_better: Collection[str] = (),
    rows: int = 5,
    any_judge: bool = False,
) -> Comparison:
    """Compare run B with run A, the reference, on the rows that they share.

    Args:
        a: the reference: what `load` returns, a run folder, a run's name in ``runs``, or samples.
        b: the run that is compared with it.
        scores: the names of scores to compare; None: all that both have.
        level: confidence level of intervals and verdicts, between 0 and 1.
        clusters: row id -> group, where rows of a group are not independent (questions about one text, say); None: as recorded,
            by the runs' ``data.cluster``.
        lower_is_better: the names of scores of which less is better.
        rows: how many flips to return.
        any_judge: compare scores of different judges as well.

    Returns:
        B - A by score, with errors, intervals and verdicts; see `compare_all` for the method.

    Raises:
        ConfigError, RecordError: as `compare_all` does.
    """
    (found,) = compare_all(
        [a, b],
        scores=scores,
        level=level,
        clusters=clusters,
        lower_is_better=lower_is_better,
        rows=rows,
        any_judge=any_judge,
    )
    return found


def compare_all(  # noqa: PLR0913 - each is a choice of its own, given by name
    runs: Sequence[Source],
    *,
    scores: Sequence[str] | None = None,
    level: float = 0.95,
    clusters: Mapping[str, Hashable] | None = None,
    lower_is_better: Collection[str] = (),
    rows: int = 5,
    any_judge: bool = False,
    resamples: int = RESAMPLES,
) -> list[Comparison]:
    """Compare several runs with the first one, A, the reference.

    Samples are aligned by row id and repeat. Those without a score in either run are counted, and left out; if the ones that one
    run alone lacks could turn a verdict, it is undecided: see `runner.analysis.changes.Bounds`. The repeats of a row are
    averaged, and rows (or clusters of rows) are the units of every test; see `runner.stats.stats` for the formulas.

    Args:
        runs: the reference, then the runs that are compared with it: each a run, its folder or name, or its samples.
        scores: the names of scores to compare; None: all that A and the other run have.
        level: of intervals and verdicts, between 0 and 1.
        clusters: row id -> group, where rows of a group are not independent (questions about one text, say); None: as recorded.
        lower_is_better: the names of scores of which less is better.
        rows: how many flips to return.
        any_judge: compare scores of different judges as well; by default they get no verdict.
        resamples: of the bootstrap intervals, most of the time that many rows take; 0: none are made.

    Returns:
        One comparison for each run but the first. Verdicts are by p-values that Holm's method adjusts for all scores and runs.

    Raises:
        ConfigError: there are fewer than two runs, a score that is named is not in both runs, a row has no cluster, or `level` is
            not between 0 and 1.
        RecordError: two runs have no row in common, or a record cannot be read.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: a confidence level lies between 0 and 1, such as 0.95")
    if len(runs) < 2:  # noqa: PLR2004
        raise ConfigError("there is nothing to compare: give the reference, then the runs to compare with it")
    first, *others = runs
    reference = Side(first, "A")
    method = Method(level, clusters, resamples)
    found = []
    for index, other in enumerate(others):
        name = chr(ord("B") + index) if index < 25 else f"run {index + 2}"  # noqa: PLR2004
        pairs = Pairs(reference, Side(other, name, reference))
        found.append(_compared(pairs, scores, method, lower_is_better, rows, any_judge))
    changes = judged([one.scores for one in found], level)
    return [msgspec.structs.replace(one, scores=scores) for one, scores in zip(found, changes, strict=True)]


def _compared(
    pairs: Pairs,
    wanted: Sequence[str] | None,
    method: Method,
    lower_is_better: Collection[str],
    rows: int,
    any_judge: bool,
) -> Comparison:
    """Return the comparison without verdicts, which need all p-values."""
    a, b = pairs.a, pairs.b
    if len(pairs.only_a) == len(a.at):
        raise RecordError(f"{a.name} and {b.name} have no row in common{_examples(pairs)}: were they played on the same data?")
    names = _names(a, b, wanted, lower_is_better)
    before, after = (side.run.manifest if side.run else None for side in (a, b))
    judges = {} if any_judge else {name: told for name in names if (told := differ(before, after, name))}
    names = [name for name in names if name not in judges]
    primary = names[0] if names else None
    if method.clusters is None:
        method = method._replace(clusters=pairs.clusters())
    changes = {name: change(pairs, name, method, lower_is_better=name in lower_is_better) for name in names}
    return Comparison(
        a=a.name,
        b=b.name,
        level=method.level,
        primary=primary,
        answered=len(pairs.both),
        errors_a=pairs.errors_a,
        errors_b=pairs.errors_b,
        only_a=len(pairs.only_a),
        only_b=len(pairs.only_b),
        only_a_ids=_some_ids(pairs.only_a),
        only_b_ids=_some_ids(pairs.only_b),
        changed=pairs.changed,
        same=pairs.same,
        scores=changes,
        missing=[name for name in dict.fromkeys([*a.scores, *b.scores]) if (name in a.scores) != (name in b.scores)],
        measures=_measures(pairs),
        flips=pairs.flips(primary, rows, lower_is_better=primary in lower_is_better),
        config_changes=list(_config_changes(a.run, b.run)),
        data_changes=list(_data_changes(a.run, b.run)),
        corrected={
            name: one
            for name in (*names, *judges)
            if (one := corrected_change(pairs, name, method.clusters, method.level)) is not None
        },
        judges=judges,
    )


def _names(a: Side, b: Side, wanted: Sequence[str] | None, also: Iterable[str]) -> list[str]:
    common = [name for name in a.scores if name in b.scores]
    for name in [*(wanted or ()), *also]:
        if name not in common:
            where = f"{a.name} has {', '.join(a.scores) or 'none'}, {b.name} has {', '.join(b.scores) or 'none'}"
            raise ConfigError(f"there is no score '{name}' in both runs: {where}")
    return common if wanted is None else list(wanted)


def _measures(pairs: Pairs) -> dict[str, Measure]:
    sides = list(zip((pairs.a, pairs.b), pairs.places_of_both, strict=True))
    measures = {
        name: _measure(*(_mean([getattr(side, field)[at] for at in places]) for side, places in sides))
        for name, field in (("prompt_tokens",) * 2, ("completion_tokens",) * 2, ("price_usd", "price"))
    }
    times = [sorted(time for at in places if not math.isnan(time := side.latency[at])) for side, places in sides]
    for q in (50, 95):
        measures[f"latency_p{q}_s"] = _measure(*(quantile(some, q / 100) if some else None for some in times))
    return measures


def _measure(a: float | None, b: float | None) -> Measure:
    return Measure(a, b, None if a is None or b is None else b - a)


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean; None if there are no values, or some are unknown (NaN)."""
    return None if not values or math.isnan(total := math.fsum(values)) else total / len(values)


def _config_changes(a: Run | None, b: Run | None) -> Iterator[str]:
    if a is None or b is None:
        return
    one, other = ({key: value for key, value in _as_sent(run).items() if key not in _BESIDE} for run in (a, b))
    yield from differences(one, other, names=_NAMES)
    files, other_files = (run.manifest.get("files", {}) for run in (a, b))
    texts, other_texts = (run.manifest.get("texts", {}) for run in (a, b))
    for key in dict.fromkeys([*files, *other_files]):
        if files.get(key) == other_files.get(key) or key == "scoring.calibration":
            continue
        if key in texts and key in other_texts:
            yield from differences(texts[key], other_texts[key], key, names=_NAMES)
        else:
            yield f"{key}: the files differ"
    served, other_served = (run.manifest.get("model", {}).get("served", []) for run in (a, b))
    yield from differences(served, other_served, "model served")
    weights, other_weights = map(_weights, (a, b))
    if weights and other_weights:
        yield from differences(weights, other_weights, "weights served")


def _weights(run: Run) -> str:
    """Return the weights that the server named (see `runner.experiment.served`), or nothing."""
    return str(run.manifest.get("model", {}).get("endpoint") or "").partition("#")[2]


def _as_sent(run: Run) -> dict[str, Any]:
    """Return the config of a run, in which parameters that its model does not take are "not sent".

    Its calibration changes no score, and is left out.
    """
    config = dict(run.config)
    if isinstance(scoring := config.get("scoring"), dict):
        config["scoring"] = {name: value for name, value in scoring.items() if name != "calibration"}
    for name, value in run.manifest.get("model", {}).get("not_sent", {}).items():
        for group, below in (("sampling", ()), ("model", ("params",))):
            config[group] = _replaced(config.get(group), (*below, name), value)
    return config


def _replaced(fields: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return `fields` with the value at `path` replaced by "not sent", if it is `value`."""
    if not path:
        return _NOT_SENT if fields == value and fields is not None else fields
    if not isinstance(fields, dict) or path[0] not in fields:
        return fields
    return {**fields, path[0]: _replaced(fields[path[0]], path[1:], value)}


def _data_changes(a: Run | None, b: Run | None) -> Iterator[str]:
    if a is None or b is None:
        return
    one, other = ({key: run.manifest.get("data", {}).get(key) for key in ("name", "rows", "fingerprint")} for run in (a, b))
    yield from differences(one, other, "data")


def _some_ids(slots: Iterable[tuple[str, int]]) -> list[str]:
    return list(dict.fromkeys(row for row, _ in slots))[:_SHOWN_IDS]


def _examples(pairs: Pairs) -> str:
    """Return the first ids of each, if both have some."""
    a, b = (_some_ids(slots)[:2] for slots in (pairs.only_a, pairs.only_b))
    return f" ({', '.join(a)}, ...; {', '.join(b)}, ...)" if a and b else ""
