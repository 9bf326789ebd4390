"""Compare the samples of two runs of one experiment: row by row, repeat by repeat, byte for byte."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.batch.entries import status_of
from runner.experiment.drift import plain
from runner.wording.differences import differences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.records import RunFolder
    from runner.types import Sample

SHOWN = 5
"""How many differences are shown. All are counted."""

_ANSWER = ("output", "parsed", "finish_reason", "target", "messages", "prompt")
_encode = msgspec.json.Encoder(order="deterministic").encode


class Agreement(msgspec.Struct, kw_only=True):
    """How the samples of two runs agree, row by row and repeat by repeat.

    Attributes:
        compared: samples that both runs have.
        same: samples of these that have the same prompt, output, status and scores.
        prompts, outputs, statuses, scores: samples that differ in each of these.
        gone: answered samples that the second run lacks. `new`: samples that only the second run has.
        unanswered: samples that failed in the first run and that the second lacks.
        shown: the first differences.
        means: ``before``, ``after`` and their ``difference``, by score.
    """

    compared: int = 0
    same: int = 0
    prompts: int = 0
    outputs: int = 0
    statuses: int = 0
    scores: int = 0
    gone: int = 0
    unanswered: int = 0
    new: int = 0
    shown: list[str] = []
    means: dict[str, dict[str, float | None]] = {}

    @property
    def differs(self) -> bool:
        """Return whether any sample that both runs have differs."""
        return self.same < self.compared


def agree(before: RunFolder, after: RunFolder) -> Agreement:
    """Compare two runs. Holds about a hundred bytes per sample of the first run in memory, and no text.

    Raises:
        RecordError: a record cannot be read.
    """
    found = Agreement()
    known = {_slot(sample): _Known.of(sample) for sample in before.samples()}
    different: dict[tuple[str, int], Sample] = {}
    for sample in after.samples():
        was, now = known.pop(_slot(sample), None), _Known.of(sample)
        if was is None:
            found.new += 1
            continue
        found.compared += 1
        found.same += was == now
        found.prompts += was.prompt != now.prompt
        found.outputs += was.output != now.output
        found.statuses += was.status != now.status
        found.scores += was.scores != now.scores
        if was != now and len(different) < SHOWN:
            different[_slot(sample)] = sample
    found.gone = sum(was.answered for was in known.values())
    found.unanswered = len(known) - found.gone
    found.shown = list(_shown(before, different))
    found.means = _means(before, after)
    return found


def changes(recorded: Sample, played: Sample, *, not_scored: Iterable[str] = ()) -> list[str]:
    """Return how an answer that was computed again differs from the recorded one, byte for byte. Costs are not compared."""
    unscored = set(not_scored)
    was, now = _answer(recorded, unscored), _answer(played, unscored)
    if unscored and was["error"] == "scoring":  # the only error was its scorer's, which is not run
        for answer in (was, now):
            del answer["status"], answer["error"]
    return [] if _encode(was) == _encode(now) else list(differences(plain(was), plain(now)))


def label(sample: Sample) -> str:
    """Return the name of a sample for messages."""
    return f"{sample.id} (repeat {sample.repeat})" if sample.repeat else sample.id


def has_answer(sample: Sample) -> bool:
    """Return whether the record is enough to compute a sample again: it has an answer, or failed before anything was sent.

    It is not if a step has failed that its solver went on without: a cache holds answers, and no errors.
    """
    if any(step.error is not None for step in sample.steps or ()):
        return False
    if sample.status == "refused":
        return sample.error is None  # the model refused; with an error, the provider did, before the model was asked
    return sample.status != "error" or (sample.error is not None and sample.error.code in ("scoring", "data"))


class _Known(NamedTuple):
    """The parts of a sample that are compared."""

    prompt: bytes
    output: bytes
    status: str
    scores: tuple[tuple[str, float], ...]
    answered: bool

    @classmethod
    def of(cls, sample: Sample) -> _Known:
        code = sample.error.code if sample.error else None
        return cls(
            _digest((sample.messages, sample.prompt, sample.target, *_steps(sample))),
            _digest((sample.output, sample.parsed, sample.finish_reason)),
            f"{_status(sample)} {code}",
            tuple(sorted(sample.scores.items())),
            has_answer(sample),
        )


def _answer(sample: Sample, unscored: set[str]) -> dict[str, Any]:
    answer = {name: getattr(sample, name) for name in _ANSWER}
    scores = {name: value for name, value in sample.scores.items() if name not in unscored}
    told = {"status": _status(sample), "error": sample.error.code if sample.error else None}
    said = {name: (one.label, one.reason) for name, one in (sample.judgements or {}).items() if name not in unscored}
    more = {**({} if sample.steps is None else {"steps": _steps(sample)}), **({"judgements": said} if said else {})}
    return {**told, **answer, "scores": scores, **more}


def _steps(sample: Sample) -> list[str]:
    """Return what each step has asked and heard, in an order that does not depend on which of them was first."""
    return sorted(_encode((step.added, step.finish_reason)).decode() for step in sample.steps or ())


def _status(sample: Sample) -> str:
    """Return the status of an answer as this version tells it: earlier ones knew fewer finish reasons, and no ``empty``."""
    if sample.status not in ("ok", "truncated", "empty"):
        return sample.status
    return status_of(sample.finish_reason, empty=not sample.output)


def _shown(before: RunFolder, different: dict[tuple[str, int], Sample]) -> Iterator[str]:
    for sample in before.samples() if different else ():
        if (now := different.get(_slot(sample))) is not None:
            yield f"{label(sample)}: {'; '.join(changes(sample, now))}"


def _means(before: RunFolder, after: RunFolder) -> dict[str, dict[str, float | None]]:
    was, now = (summary.scores if (summary := run.summary()) else {} for run in (before, after))
    means: dict[str, dict[str, float | None]] = {}
    for name in dict.fromkeys([*was, *now]):
        first, second = (scores[name].mean if name in scores else None for scores in (was, now))
        moved = second - first if first is not None and second is not None else None
        means[name] = {"before": first, "after": second, "difference": moved}
    return means


def _slot(sample: Sample) -> tuple[str, int]:
    return sample.id, sample.repeat


def _digest(value: Any) -> bytes:
    return hashlib.sha256(_encode(value)).digest()[:16]
