"""Two runs side by side, samples aligned by row and repeat. Holds a few numbers per sample; answers are read again when shown."""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter
from itertools import compress, count
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from runner.analysis.load import Run, Sweep, load
from runner.analysis.same import Asked, key_of
from runner.attachments import said
from runner.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from runner.records.folder import Brief
    from runner.types import Message, Sample

Slot = tuple[str, int]
"""A row's id, and which of its repeats."""

Source: TypeAlias = "Run | Sweep | str | Path | Iterable[Sample]"
"""Something to compare: a run, its folder or name as `load` takes them, or samples. A sweep raises ConfigError."""

MAX_TEXT = 2_000
"""The most characters of a prompt or an answer that a flip shows."""


class Flip(msgspec.Struct, frozen=True):
    """One sample that two runs answered differently: its score differs or, without one, its answer.

    Attributes:
        id, repeat: which sample.
        score_a, score_b: the score that is compared; None without one.
        target: the expected answer.
        prompt: what A was asked: the last user message, or the text to continue.
        prompt_b: what B was asked, if that differs.
        output_a, output_b: the answers, shortened to `MAX_TEXT` characters.
    """

    id: str
    repeat: int
    score_a: float | None
    score_b: float | None
    target: Any
    prompt: str
    prompt_b: str | None
    output_a: str
    output_b: str


class Side:
    """One of the compared runs: a few numbers per sample, and where to read the samples again.

    Attributes:
        name: what it is called.
        run: the run, or None for plain samples.
        at: the position of each slot in the columns below, in the order of the record.
        status, answer, prompt_tokens, completion_tokens, price, latency, request: columns, a value per sample: its status, a hash
            of its answer, tokens, the price of the answer in dollars, seconds, a hash of its request's key (0: no answer).
            Unknown numbers are NaN.
        asked: what its samples were asked.
        scorers: facts about them, by name, from the manifest.
        fingerprint, repeats: of its data, and how often each row is asked; None and 1 for plain samples.
        scores: the names of its scores, the primary one first.
        clusters: the cluster of each row that has one, as recorded.
    """

    def __init__(self, source: Source, name: str, beside: Side | None = None) -> None:
        """Read the samples. `beside` is a side that most likely has the same slots: they are kept once."""
        if isinstance(source, str | Path):
            source = load(source)
        if isinstance(source, Sweep):
            raise ConfigError(f"{source.name} is a sweep: compare its cells, as in compare_all([cell.run, ...])")
        self.run = source if isinstance(source, Run) else None
        self.name = self.run.name if self.run else name
        # what can be iterated only once is kept
        self._samples: Callable[[], Iterable[Sample]] = source.samples if isinstance(source, Run) else list(source).copy
        self.asked = self.run.asked if self.run else Asked()
        same = {slot: slot for slot in beside.at} if beside else {}
        self._columns(source.briefs() if isinstance(source, Run) else [_numbered(self._samples())], same)
        known = self.run.summary.scores if self.run and self.run.summary else ()
        manifest, config = (self.run.manifest, self.run.config) if self.run else (None, None)
        self.fingerprint = manifest.get("data", {}).get("fingerprint") if manifest else None
        self.repeats = (config.get("sampling") or {}).get("repeats", 1) if config else 1
        self.scorers: dict[str, Any] = manifest.get("scorers") or {} if manifest else {}
        counted = {id(self._scores[at]): self._scores[at] for at in self.at.values()}
        seen = dict.fromkeys(name for scores in counted.values() for name in scores)
        self.scores = [*(name for name in known if name in seen), *(name for name in seen if name not in known)]

    def _columns(self, parts: Iterable[tuple[Sequence[int], Sequence[Sample | Brief]]], same: Mapping[Slot, Slot]) -> None:
        """Keep a few numbers per sample, from parts of the record. If a sample comes twice, the last one counts, at its place.

        Slots that are in `same` are taken from there.
        """
        self.at: dict[Slot, int] = {}
        self.clusters: dict[str, str] = {}
        self.status: list[str] = []
        self.answer, self.request, self._lines = array("q"), array("q"), array("q")
        self.prompt_tokens, self.completion_tokens = array("d"), array("d")
        self.price, self.latency = array("d"), array("d")
        self._scores: list[dict[str, float]] = []
        alike: dict[Any, dict[str, float]] = {}
        for lines, samples in parts:
            slots = [(one.id, one.repeat) for one in samples]
            self.at.update(zip([same.get(slot, slot) for slot in slots], count(len(self._lines)), strict=False))
            self._lines.extend(lines)
            self.clusters.update({one.id: one.cluster for one in samples if one.cluster is not None})
            self.status += [one.status for one in samples]
            self.answer.extend([hash((one.status, one.output)) for one in samples])
            self.request.extend([key_of(one) or 0 for one in samples])
            usages = [one.usage for one in samples]
            self.prompt_tokens.extend([math.nan if usage is None else usage.prompt_tokens for usage in usages])
            self.completion_tokens.extend([math.nan if usage is None else usage.completion_tokens for usage in usages])
            self.price.extend(map(_price, samples))
            self.latency.extend([math.nan if one.latency_s is None else one.latency_s for one in samples])
            self._scores += [alike.setdefault(tuple(one.scores.items()), one.scores) for one in samples]
        if len(self.at) < len(self._lines):
            self.at = dict(sorted(self.at.items(), key=itemgetter(1)))
        self._by_name: dict[str, list[float | None]] = {}

    def score(self, name: str) -> list[float | None]:
        """Return the column of a score: None for samples without it, or of which it is not finite."""
        if name not in self._by_name:
            alike = {id(scores): scores for scores in self._scores}
            values = {key: _finite(scores.get(name)) for key, scores in alike.items()}
            self._by_name[name] = [values[id(scores)] for scores in self._scores]
        return self._by_name[name]

    def read(self, slots: Collection[Slot]) -> dict[Slot, Sample]:
        """Return the samples of these slots, whole."""
        lines = {self._lines[self.at[slot]] for slot in slots}
        if self.run is not None:
            samples = self.run.samples_at(lines)
        else:
            samples = (sample for line, sample in enumerate(self._samples()) if line in lines)
        return {(sample.id, sample.repeat): sample for sample in samples}


class Pairs:
    """The samples that two runs have in common.

    Attributes:
        only_a, only_b: slots that only one of them has.
        owed_a, owed_b: those slots of the other run that A (B) has yet to ask, on the same data.
        errors_a, errors_b: samples in common that failed in A (in B).
        common: slots that both have, in A's order.
        both: those of them that both have answered.
    """

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b
        self.only_a = [slot for slot in a.at if slot not in b.at]
        self.only_b = [slot for slot in b.at if slot not in a.at]
        same_data = a.fingerprint is not None and a.fingerprint == b.fingerprint
        self.owed_a = [slot for slot in self.only_b if same_data and slot[1] < a.repeats]
        self.owed_b = [slot for slot in self.only_a if same_data and slot[1] < b.repeats]
        self.common = [slot for slot in a.at if slot in b.at]
        in_a, in_b = self.places = array("q", map(a.at.__getitem__, self.common)), array("q", map(b.at.__getitem__, self.common))
        failed_a, failed_b = ([side.status[at] == "error" for at in places] for side, places in ((a, in_a), (b, in_b)))
        self.errors_a, self.errors_b = sum(failed_a), sum(failed_b)
        answered = [not (one or other) for one, other in zip(failed_a, failed_b, strict=True)]
        self.both = list(compress(self.common, answered))
        self.places_of_both = array("q", compress(in_a, answered)), array("q", compress(in_b, answered))

    def scored(self, name: str) -> Iterator[tuple[Slot, float, float]]:
        """Yield every slot with a finite score `name` in both runs, and the two scores."""
        for slot, one, other in self._scores(name):
            if one is not None and other is not None:
                yield slot, one, other

    def one_sided(self, name: str) -> Iterator[tuple[Slot, float | None, float | None]]:
        """Yield every slot with the score in one run, and left out of it, or owed, in the other (None)."""
        for slot, one, other in self._scores(name):
            if (one is None) != (other is None):
                yield slot, one, other
        for slots, side in ((self.owed_b, self.a), (self.owed_a, self.b)):
            for slot in slots:
                if (value := side.score(name)[side.at[slot]]) is not None:
                    yield (slot, value, None) if side is self.a else (slot, None, value)

    def unscored(self, name: str) -> int:
        """Return how many samples that both runs have answered lack the score in one of them."""
        sides = zip((self.a, self.b), self.places_of_both, strict=True)
        return sum(None in pair for pair in zip(*(map(side.score(name).__getitem__, at) for side, at in sides), strict=True))

    def _scores(self, name: str) -> Iterator[tuple[Slot, float | None, float | None]]:
        """Yield every slot in common, and its scores."""
        columns = [map(side.score(name).__getitem__, at) for side, at in zip((self.a, self.b), self.places, strict=True)]
        yield from zip(self.common, *columns, strict=True)

    def measures(self, name: str) -> bool:
        """Return whether a score is recorded as a quantity, which has no bounds."""
        return any((side.scorers.get(name) or {}).get("measures") for side in (self.a, self.b))

    def left_out(self, name: str) -> tuple[dict[str, int], dict[str, int]]:
        """Count the samples of A and of B without the score, by status; ``owed``: not asked yet."""
        counts = []
        for side, places, owed in zip((self.a, self.b), self.places, (self.owed_a, self.owed_b), strict=True):
            scores = side.score(name)
            found = Counter(side.status[at] for at in places if scores[at] is None)
            found["owed"] = len(owed)
            counts.append({status: count for status, count in found.items() if count})
        return counts[0], counts[1]

    @property
    def same(self) -> int:
        """Return how many samples of B are an answer of A as well."""
        a, b = self.a, self.b
        keys = {a.request[at] for at in a.at.values()} - {0}
        same = {at for at in b.at.values() if b.request[at] in keys}
        if a.asked.has_form_of(b.asked):
            seeds = {(row, a.asked.seed(repeat)) for (row, repeat), at in a.at.items() if a.request[at]}
            answered = ((slot, at) for slot, at in b.at.items() if b.request[at])
            same |= {at for (row, repeat), at in answered if (row, b.asked.seed(repeat)) in seeds}
        return len(same)

    def clusters(self) -> dict[str, str] | None:
        """Return the cluster of each row as recorded, in A or else in B; None if no row has one."""
        return {**self.b.clusters, **self.a.clusters} or None

    @property
    def changed(self) -> int:
        """Return the number of samples whose answers differ."""
        return sum(self._changed())

    def _changed(self) -> Iterator[bool]:
        """Yield for each slot of `both` whether the answers differ."""
        in_a, in_b = self.places_of_both
        return (self.a.answer[one] != self.b.answer[other] for one, other in zip(in_a, in_b, strict=True))

    def flips(self, name: str | None, rows: int, *, lower_is_better: bool = False) -> list[Flip]:
        """Return the first `rows` samples to look at: losses in the score `name` (largest first), gains, then changed answers."""
        scores = {slot: (one, other) for slot, one, other in self.scored(name) if one != other} if name is not None else {}

        def rank(slot: Slot) -> tuple[int, float, str, int]:
            one, other = scores.get(slot, (0.0, 0.0))
            gain = one - other if lower_is_better else other - one
            return (2 if gain == 0 else int(gain > 0), -abs(gain), *slot)

        differ = (slot for slot, changed in zip(self.both, self._changed(), strict=True) if changed or slot in scores)
        first = heapq.nsmallest(rows, differ, key=rank if scores else None)
        chosen = set(first)
        in_a, in_b = self.a.read(chosen), self.b.read(chosen)
        shown = {slot: pair for slot, *pair in self.scored(name) if slot in chosen} if name is not None else {}
        return [_flip(in_a[slot], in_b[slot], *shown.get(slot, (None, None))) for slot in first]


def _numbered(samples: Iterable[Sample]) -> tuple[range, list[Sample]]:
    known = list(samples)
    return range(len(known)), known


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _price(sample: Sample | Brief) -> float:
    """Return the price of the answer in dollars, whether it was paid now or came from the cache; NaN: unknown."""
    if sample.cost_usd is None or (sample.cache == "hit" and sample.saved_usd is None):
        return math.nan
    return sample.cost_usd + (sample.saved_usd or 0.0)


def _flip(a: Sample, b: Sample, score_a: float | None, score_b: float | None) -> Flip:
    asked_a, asked_b = question_of(a), question_of(b)
    return Flip(
        id=a.id,
        repeat=a.repeat,
        score_a=score_a,
        score_b=score_b,
        target=a.target,
        prompt=shortened(asked_a),
        prompt_b=None if asked_a == asked_b else shortened(asked_b),
        output_a=shortened(a.output or ""),
        output_b=shortened(b.output or ""),
    )


def question_of(sample: Sample) -> str:
    """Return what was asked: the last user message, or the text to continue."""
    if sample.messages is None:
        return sample.prompt or ""
    asked: Sequence[Message] = [message for message in sample.messages if message.get("role") == "user"] or sample.messages
    return said(asked[-1]) if asked else ""


def shortened(text: str, length: int = MAX_TEXT) -> str:
    """Return `text`, or its beginning and the number of characters left out."""
    return text if len(text) <= length else f"{text[:length]} ... ({len(text) - length:,} characters more)"
