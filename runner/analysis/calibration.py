"""Calibrations: how often a judge errs, by labels of people, and the mean scores that follow. Other runs may use them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from runner.analysis.labels import among_people, by_person, joined, scoring_of
from runner.errors import ConfigError, DataError
from runner.records.labels import answer_hash, read_labels
from runner.stats.agreement import Agreement, kappa
from runner.stats.corrected import Rate, by_rates, corrected, rates
from runner.types import Corrected
from runner.wording import numbers
from runner.wording.differences import differences

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from pathlib import Path

    from runner.analysis.load import Run
    from runner.records.folder import RunFolder
    from runner.records.labels import Label
    from runner.stats.corrected import Labelled
    from runner.types import Sample

FORMAT = 1

FEW_LABELS, FEW_OF_A_KIND = 30, 5
"""With fewer labels, or fewer of what is right or of what is wrong, a remark says that they are few."""

_ASIDE = ("calibration", "refused", "errors", "truncated", "answers", "pass_at", "budget", "scorers")
"""Settings of a scorer that do not change what it says of an answer."""

NAMES = ("calibrated", "here")


class Table(msgspec.Struct, frozen=True):
    """Counts of labelled answers: the first word is the judge's, the second that of people. Even divisions are left out."""

    right_right: int
    right_wrong: int
    wrong_right: int
    wrong_wrong: int


class Measured(msgspec.Struct, frozen=True):
    """A share, its interval, and how many independent answers would tell as much."""

    mean: float
    interval: tuple[float, float]
    n: float


class Consistency(msgspec.Struct, frozen=True, kw_only=True):
    """How often a judge says the same when it is asked again about an answer that it has judged.

    Attributes:
        asked: answers that it was asked about again.
        unusable: those of which it gave no usable verdict this time; they are not in the share.
        same: the share of equal verdicts (label and score) in the rest.
        interval: of that share, 95 %.
        requests, cost_usd: what asking took; verdicts that the cache has cost nothing. A cost of None is unknown.
        others: models that answered now, and not the first time.
    """

    asked: int
    unusable: int
    same: float
    interval: tuple[float, float]
    requests: int
    cost_usd: float | None
    others: list[str] = []


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How wrong a judge is, as measured on one run. It is written as JSON.

    Attributes:
        format: version of the file.
        score: the score that was calibrated.
        run: the run whose answers people have labelled.
        made_at: when, ISO 8601.
        judge: who judged: the scorer's settings and facts, and the models that answered for it.
        labels, people: labelled answers, and the people who labelled them.
        raw: the judge's mean score of that run.
        corrected: the same, corrected by the labels; None if they are too few.
        table, sensitivity, specificity, kappa: of scores of 0 and 1 alone; a rate is None without an answer of its kind.
        agreement: the share of answers on which the judge says the same as people.
        among_people: how far people agree.
        again: how often the judge repeats itself; None: it was not asked again.
        remarks: what is to be said of it.
    """

    format: int = FORMAT
    kind: str = "calibration"
    score: str
    run: str
    made_at: str
    judge: dict[str, Any]
    labels: int
    people: list[str]
    raw: float
    agreement: float
    corrected: Corrected | None = None
    table: Table | None = None
    sensitivity: Measured | None = None
    specificity: Measured | None = None
    kappa: float | None = None
    among_people: Agreement | None = None
    again: Consistency | None = None
    remarks: list[str] = []


def calibrate(run: Run, score: str, made_at: str) -> Calibration:
    """Measure the judge of a run by the labels beside its record.

    Args:
        run: a run with labels.
        score: the score that is calibrated.
        made_at: the time to record.

    Raises:
        DataError: there are no labels of this score.
        RecordError: the labels cannot be read.
    """
    labels = read_labels(run.folder)
    judged = Judged(run.samples(), score, labels)
    scores, labelled = judged.scores, judged.labelled
    if not labelled:
        known = ", ".join(sorted({one.score for one in labels})) or "none"
        raise DataError(f"{run.name} has no labels of the score '{score}' (labels: {known}); `ostinato labels` draws some")
    binary = all(value in (0, 1) for value in scores) and all(0 <= one.label <= 1 for one in labelled)
    people = sorted({one.who for one in labels if one.score == score})
    found = Calibration(
        score=score,
        run=run.name,
        made_at=made_at,
        judge=judge_of(run, score),
        labels=len(labelled),
        people=people,
        raw=math.fsum(scores) / len(scores),
        agreement=math.fsum(one.weight * (one.score == one.label) for one in labelled)
        / math.fsum(one.weight for one in labelled),
        corrected=corrected(scores, judged.units, labelled),
        among_people=among_people(labels, score) if len(people) > 1 else None,
    )
    if binary:
        found = _with_rates(found, scores, labelled)
    return msgspec.structs.replace(found, remarks=list(_remarks(found, labelled, judged.changed)))


def _with_rates(found: Calibration, scores: Sequence[float], labelled: Sequence[Labelled]) -> Calibration:
    said = Rate(math.fsum(scores) / len(scores), len(scores))
    decided = [(one.score == 1, one.label > 0.5) for one in labelled if one.label != 0.5]  # noqa: PLR2004
    table = Table(*(decided.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))))
    sensitivity, specificity = (_measured(rate) for rate in rates(labelled, said))
    weights = [one.weight for one in labelled if one.label != 0.5]  # noqa: PLR2004
    agreed = kappa(decided, weights)
    return msgspec.structs.replace(found, table=table, sensitivity=sensitivity, specificity=specificity, kappa=agreed)


def _measured(rate: Rate) -> Measured | None:
    return Measured(rate.mean, rate.interval(), rate.n) if rate.n else None


def _remarks(found: Calibration, labelled: Sequence[Labelled], changed: int) -> Iterable[str]:
    if len({one.weight for one in labelled}) > 1:
        yield "answers were drawn with unequal chances; all but the table is weighted back to the whole run"
    if found.labels < FEW_LABELS:
        yield f"{found.labels} labels are few: intervals are wide, and rare errors are not seen"
    elif found.table is not None:
        for kind, count in (
            ("right", found.table.right_right + found.table.wrong_right),
            ("wrong", found.table.right_wrong + found.table.wrong_wrong),
        ):
            if count < FEW_OF_A_KIND:
                yield f"only {count} of the labelled answers are {kind}, so little is known of how the judge judges such"
    if found.sensitivity and found.specificity and found.sensitivity.mean + found.specificity.mean <= 1:
        yield "the judge is no better than chance; other runs cannot be corrected by it"
    if changed:
        yield f"{numbers.count(changed, 'label')} left out: the answers have changed since they were labelled"


# --- who judges


def judge_of(run: Run, score: str, scorers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return who judges a score: settings and facts of the scorer, and the models that answered for it."""
    known = run.manifest.get("scorers") if scorers is None else scorers
    facts = (known or {}).get(score.partition(".")[0]) or {}
    served = sorted(
        {str(model) for sample in run.samples() if (model := _judged_by(sample, score)) is not None},
    )
    return {"scoring": settings_of(scoring_of(run, score)), "files": _files(run, score), "scorer": facts, "served": served}


def _files(run: Run, score: str) -> dict[str, str]:
    """Return the digests of the files that the scorer of `score` names, such as its rubric; code is in the facts."""
    several = (run.config.get("scoring") or {}).get("kind") == "several"
    prefix = f"scoring.scorers.{score.partition('.')[0]}." if several else "scoring."
    files = {
        key.removeprefix(prefix): digest for key, digest in (run.manifest.get("files") or {}).items() if key.startswith(prefix)
    }
    return {key: digest for key, digest in files.items() if key != "calibration" and not key.endswith("function")}


def settings_of(scoring: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a scorer that change what it says of an answer."""
    return {name: value for name, value in scoring.items() if name not in _ASIDE}


def _judged_by(sample: Any, score: str) -> str | None:
    judgements = getattr(sample, "judgements", None) or {}
    found = judgements.get(score, judgements.get(score.partition(".")[0]))
    model = found.get("model") if isinstance(found, dict) else getattr(found, "model", None)
    return None if model is None else str(model)


def other_judge(calibration: Calibration, judge: Mapping[str, Any]) -> list[str]:
    """Return how the judge differs from the one that was calibrated."""
    return list(differences(calibration.judge, dict(judge), names=NAMES))


def remarks_on(
    calibration: Calibration | None, run: Run, found: Mapping[str, Corrected], scorers: Mapping[str, Any] | None = None
) -> list[str]:
    """Return what is to be said of corrected scores: whether the judge is the one that was calibrated.

    Args:
        calibration: that the run's config names; None: none.
        run: the run.
        found: its corrected scores.
        scorers: facts about its scorers; None: as its manifest records them.
    """
    if calibration is None:
        return []
    score = calibration.score
    told = [
        f"{score}: the judge is not the one that was calibrated: {one}"
        for one in other_judge(calibration, judge_of(run, score, scorers))
    ]
    one = found.get(score)
    if one is None:
        told.append(
            f"{score}: not corrected; by labels of another run only scores of 0 and 1 are, which need both kinds of answers"
        )
    elif one.method != "rates":
        told.append(f"{score}: corrected by labels of this run, which go before those of the calibration")
    return told


# --- corrected scores of a run


def corrections(
    record: RunFolder, names: Iterable[str], calibration: Calibration | None, labels: Sequence[Label] | None = None
) -> dict[str, Corrected]:
    """Return the corrected means of a run's scores: by labels of its own answers, else by a calibration.

    Args:
        record: the run.
        names: its scores.
        calibration: of one of them, by labels of other answers; None: there is none.
        labels: of this run; None: those beside the record.
    """
    labels = read_labels(record.path) if labels is None else labels
    wanted = {one.score for one in labels} | ({calibration.score} if calibration else set())
    if not (wanted := wanted & set(names)):
        return {}
    found = {}
    for name in sorted(wanted):
        judged = Judged(record.samples(), name, labels)
        one = corrected(judged.scores, judged.units, judged.labelled)
        if one is None and judged.scores and calibration is not None and calibration.score == name:
            one = _by_calibration(calibration, judged.scores, judged.units)
        if one is not None:
            found[name] = one
    return found


class Judged:
    """One score of a run: its values, the unit of each, and the answers with a label.

    Attributes:
        scores: the finite ones.
        units: the row or cluster of each; None: all are independent.
        labelled: answers with a label, and a score.
        changed: labels that are left out because the answer has changed since.
    """

    def __init__(self, samples: Iterable[Sample], score: str, labels: Iterable[Label]) -> None:
        people = by_person(labels, score)
        self.scores: list[float] = []
        self.labelled: list[Labelled] = []
        self.changed = 0
        units: list[Hashable] = []
        for sample in samples:
            value = sample.scores.get(score)
            if value is None or not math.isfinite(value):
                continue
            unit = ("row", sample.id) if sample.cluster is None else ("cluster", sample.cluster)
            self.scores.append(float(value))
            units.append(unit)
            if own := list(people.get((sample.id, sample.repeat), {}).values()):
                answer = answer_hash(sample)
                known = [one for one in own if one.answer == answer]
                self.changed += len(own) - len(known)
                if known:
                    self.labelled.append(joined(known, float(value), unit))
        self.units = units if len(set(units)) < len(units) else None


def _by_calibration(calibration: Calibration, scores: Sequence[float], units: Sequence[Hashable] | None) -> Corrected | None:
    hit, correct = calibration.sensitivity, calibration.specificity
    if hit is None or correct is None or any(score not in (0, 1) for score in scores):
        return None
    return by_rates(scores, units, Rate(hit.mean, hit.n), Rate(correct.mean, correct.n), calibration.labels)


# --- the file


def read_calibration(path: Path) -> Calibration:
    """Read a calibration. Raises ConfigError if the file cannot be read, is not a calibration, or is of a newer version."""
    where = f"scoring.calibration: {path}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}; `ostinato calibrate RUN -o FILE` writes one") from None
    try:
        found = msgspec.json.decode(content)
        if not isinstance(found, dict) or found.get("kind") != "calibration":
            raise ConfigError(f"{where} is not a calibration; `ostinato calibrate RUN -o FILE` writes one")
        if not isinstance(found.get("format"), int) or found["format"] > FORMAT:
            raise ConfigError(f"{where}: its format is {found.get('format')}, and this version of ostinato reads {FORMAT}")
        return msgspec.convert(found, Calibration)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{where} is not a calibration: {error}") from None
