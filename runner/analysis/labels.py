"""Labels by people: rows are drawn to be labelled, what comes back is checked, and the labels of several people are joined."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from runner.analysis.pairs import question_of
from runner.errors import DataError
from runner.records.labels import Label, answer_hash
from runner.stats.agreement import Agreement, agreement
from runner.stats.corrected import Labelled, allocation
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from runner.analysis.load import Run
    from runner.types import Sample

Slot = tuple[str, int]

COLUMNS = ("id", "repeat", "score", "question", "answer", "target", "label", "who", "weight", "answer_sha256")
"""Columns of a file to be labelled. People fill in ``label``; the judge's verdict is not shown to them."""

RIGHT: dict[str, float] = {
    **dict.fromkeys(("1", "1.0", "yes", "right", "true", "correct"), 1.0),
    **dict.fromkeys(("0", "0.0", "no", "wrong", "false", "incorrect"), 0.0),
}
"""Labels of scores of 0 and 1 whose scorer names none."""

_MOST_VALUES = 10
"""Scores with more values than this are drawn at random only."""


def scoring_of(run: Run, score: str) -> dict[str, Any]:
    """Return the settings of the scorer of `score` in the config that a run was played with; none if it is not there."""
    return settings_in(run.config.get("scoring") or {}, score)


def settings_in(scoring: dict[str, Any], score: str) -> dict[str, Any]:
    """Return the settings of the scorer of `score` in the group `scoring` of a config; none if it is not there."""
    several = scoring.get("scorers") if scoring.get("kind") == "several" else None
    found = several.get(score.partition(".")[0], {}) if isinstance(several, dict) else scoring
    return found if isinstance(found, dict) else {}


class Scale(NamedTuple):
    """The numbers that a judge's rubric asks for, from the worst to the best; its scores are 0 to 1."""

    worst: float
    best: float


Allowed: TypeAlias = "dict[str, float] | Scale | None"
"""The labels that answers may get, with the score of each; or numbers of a scale; None: any number."""


def allowed(run: Run, score: str, values: Iterable[float]) -> Allowed:
    """Return the labels that answers may get.

    They are the labels or the scale of the scorer (of a panel's first judge), if it has some; else those of `RIGHT`, if its
    scores are 0 and 1.
    """
    scoring = scoring_of(run, score)
    judges = scoring.get("judges")
    own = next(iter(judges.values())) if isinstance(judges, dict) and judges else scoring
    if labels := own.get("labels"):
        if isinstance(labels, dict):
            return {str(label): float(value) for label, value in labels.items()}
    elif scale := own.get("scale"):
        return Scale(float(scale[0]), float(scale[1]))
    return RIGHT if all(value in (0, 1) for value in values) else None


def told(labels: Allowed) -> str:
    """Say what people may write."""
    if isinstance(labels, Scale):
        return f"a number from {labels.worst:g} to {labels.best:g}"
    if labels is None:
        return "a number"
    return "right or wrong" if labels == RIGHT else " or ".join(labels)


# --- to be labelled


def draw(run: Run, score: str, count: int, *, by_verdict: bool, seed: int, known: Sequence[Label] = ()) -> list[dict[str, Any]]:
    """Draw answers to be labelled, without those that have a label already.

    Args:
        run: a run.
        score: the score that is to be checked.
        count: how many; all there are if these are fewer.
        by_verdict: draw from each value of the score in the shares that make the corrected interval shortest
            (`runner.stats.corrected.allocation`); else at random.
        seed: of the draw.
        known: the labels that there are.

    Returns:
        Rows with `COLUMNS`, in random order.

    Raises:
        DataError: no answer has the score, or it has too many values to draw by them.
    """
    labelled = {one.slot for one in known if one.score == score}
    scored = {slot: value for slot, value in scores_of(run, score).items() if slot not in labelled}
    if not scored:
        raise DataError(f"{run.name}: no answer {'is left without a label' if labelled else f'has a score {score!r}'}")
    chosen = _by_verdict(scored, count, score, seed) if by_verdict else _at_random(scored, count, seed)
    samples = {(sample.id, sample.repeat): sample for sample in run.samples() if (sample.id, sample.repeat) in chosen}
    return [_row(samples[slot], score, weight) for slot, weight in chosen.items()]


def scores_of(run: Run, score: str) -> dict[Slot, float]:
    """Return the finite scores of a run, by sample."""
    return {
        (mark.id, mark.repeat): mark.scores[score]
        for mark in run.marks()
        if score in mark.scores and math.isfinite(mark.scores[score])
    }


def _at_random(scored: Mapping[Slot, float], count: int, seed: int) -> dict[Slot, float]:
    drawn = random.Random(seed).sample(list(scored), min(count, len(scored)))  # noqa: S311 - it guards nothing
    return dict.fromkeys(drawn, 1.0)


def _by_verdict(scored: Mapping[Slot, float], count: int, score: str, seed: int) -> dict[Slot, float]:
    strata: dict[float, list[Slot]] = {}
    for slot, value in scored.items():
        strata.setdefault(value, []).append(slot)
    if len(strata) > _MOST_VALUES:
        raise DataError(f"'{score}' has {len(strata):,} values, too many to draw by them: draw at random (without --by-verdict)")
    values = sorted(strata)
    shares = allocation([(value, len(strata[value])) for value in values], count)
    chance = random.Random(seed)  # noqa: S311
    drawn = [
        (slot, len(strata[value]) / share * count / len(scored))
        for value, share in zip(values, shares, strict=True)
        for slot in chance.sample(strata[value], share)
    ]
    chance.shuffle(drawn)
    return dict(drawn)


def _row(sample: Sample, score: str, weight: float) -> dict[str, Any]:
    texts = {"question": question_of(sample), "answer": sample.output or "", "target": sample.target}
    own = {"id": sample.id, "repeat": sample.repeat, "score": score, **texts, "label": "", "who": ""}
    return {**own, "weight": round(weight, 6), "answer_sha256": answer_hash(sample)}


def filled(rows: Sequence[dict[str, Any]], run: Run, source: str) -> list[dict[str, Any]]:
    """Fill in labels from another score of the run, such as one by known targets; `who` says so. Raises DataError without it."""
    values = scores_of(run, source)
    if missing := [row["id"] for row in rows if (row["id"], row["repeat"]) not in values]:
        raise DataError(f"--fill {source}: {', '.join(missing[:5])} have no such score; there is {', '.join(_names(run))}")
    return [{**row, "label": f"{values[row['id'], row['repeat']]:g}", "who": f"score {source}"} for row in rows]


def _names(run: Run) -> list[str]:
    return list(run.summary.scores) if run.summary else []


# --- labelled


def checked(rows: Iterable[Mapping[str, str | None]], run: Run, who: str | None, when: str) -> list[Label]:
    """Read the rows of a labelled file. Rows without a label are skipped.

    Args:
        rows: by column; ``id`` and ``label`` are needed.
        run: the run that the rows were drawn from.
        who: who has labelled rows that do not say so themselves.
        when: the time to record.

    Raises:
        DataError: a row that the run does not have, an unknown label or score, an answer that has changed since it was drawn, or
            nobody who says whose labels they are. Nothing is imported then.
    """
    samples = {(sample.id, sample.repeat): sample for sample in run.samples()}
    names = list(dict.fromkeys(name for sample in samples.values() for name in sample.scores))
    values = {name: {sample.scores[name] for sample in samples.values() if name in sample.scores} for name in names}
    labels = {name: allowed(run, name, values[name]) for name in names}
    found = []
    for number, row in enumerate(rows, 2):
        if not (written := (row.get("label") or "").strip()):
            continue
        where = f"line {number}, row {row.get('id')!r}"
        sample = _sample(row, samples, where, run)
        score = row.get("score") or (names[0] if names else "")
        if score not in labels:
            raise DataError(f"{where}: there is no score '{score}'{suggest(score, names) or ';'} there is {', '.join(names)}")
        if (drawn := row.get("answer_sha256")) and drawn != answer_hash(sample):
            raise DataError(f"{where}: the answer has changed since it was drawn; draw again: ostinato labels {run.folder} ...")
        person = (row.get("who") or who or "").strip()
        if not person:
            raise DataError(f"{where}: nobody says whose label this is: fill in the column 'who', or add --who NAME")
        found.append(
            Label(
                id=sample.id,
                repeat=sample.repeat,
                score=score,
                label=written,
                value=_value(written, labels[score], where),
                answer=answer_hash(sample),
                who=person,
                when=when,
                weight=_number(row.get("weight") or "1", f"{where}: weight"),
            )
        )
    return found


def _sample(row: Mapping[str, str | None], samples: Mapping[Slot, Sample], where: str, run: Run) -> Sample:
    repeat = row.get("repeat") or "0"
    name, number = row.get("id") or "", int(repeat) if repeat.isdecimal() else -1
    found = samples.get((name, number), samples.get((name.removeprefix("'"), number)))  # ' guards spreadsheets from formulas
    if found is None:
        example = next(iter(samples), ("", 0))[0]
        raise DataError(f"{where}, repeat {repeat}: {run.name} has no such row; its rows are {example!r}, ...")
    return found


def _value(written: str, labels: Allowed, where: str) -> float:
    if labels is None:
        return _number(written, where)
    if isinstance(labels, Scale):
        share = (_number(written, where) - labels.worst) / (labels.best - labels.worst)
        if not 0 <= share <= 1:
            raise DataError(f"{where}: {written} is not on the scale of the judge: {told(labels)}")
        return share
    value = labels.get(written, labels.get(written.lower()))
    if value is None:
        raise DataError(f"{where}: there is no label {written!r}{suggest(written, labels) or ';'} there is {', '.join(labels)}")
    return value


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {text!r} is not a number")
    return value


# --- joined


def by_person(labels: Iterable[Label], score: str) -> dict[Slot, dict[str, Label]]:
    """Return the labels of a score by sample and person."""
    found: dict[Slot, dict[str, Label]] = {}
    for one in labels:
        if one.score == score:
            found.setdefault(one.slot, {})[one.who] = one
    return found


def among_people(labels: Iterable[Label], score: str) -> Agreement:
    """Return how far people agree on a score: nominal for 0 and 1, else by the size of differences."""
    values = [{who: one.value for who, one in people.items()} for people in by_person(labels, score).values()]
    binary = all(value in (0, 1) for people in values for value in people.values())
    return agreement(values, "nominal" if binary else "interval")


def joined(labels: Sequence[Label], score: float, unit: Hashable) -> Labelled:
    """Return an answer with its score and the mean of the labels of several people."""
    mean = math.fsum(one.value for one in labels) / len(labels)
    return Labelled(score, mean, max(one.weight for one in labels), unit)
